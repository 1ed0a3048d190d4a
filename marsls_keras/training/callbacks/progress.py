"""Progress of a training on stderr: a bar an epoch on a terminal, and a line an epoch, which log.txt keeps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from marsls_keras.errors import RunError
from marsls_keras.runtime import peak_memory


class ProgressDisplay(keras.callbacks.Callback):
    """Show a progress bar and print a line an epoch; whoever starts the training stops `bar` when it ends, well or badly.

    Args:
        title: What is trained, such as "default fold 0".
        epochs: Number of epochs in all.
        log: File that the lines are appended to.

    Example:
        >>> progress = ProgressDisplay("default fold 0", epochs=60, log=folder / "log.txt")  # doctest: +SKIP
        >>> progress.follow(rows, steps=25, batch_size=16)  # doctest: +SKIP
        >>> model.fit(batches, epochs=60, callbacks=[progress])  # doctest: +SKIP
        >>> progress.bar.stop()  # doctest: +SKIP
    """

    def __init__(self, title: str, epochs: int, log: Path) -> None:
        super().__init__()
        self.title, self.epochs, self.log = title, epochs, log
        self.console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            TimeRemainingColumn(),
        )
        self.columns = columns
        self.follow([], 1, 1)

    def follow(self, rows: list[dict[str, float]], steps: int, batch_size: int, first_step: int = 0) -> None:
        """Say what is to be shown from now on.

        Args:
            rows: The history, read after each epoch.
            steps: Steps an epoch.
            batch_size: Tiles a step.
            first_step: Steps that the first epoch has done already.
        """
        self.rows, self.steps, self.batch_size, self.first_step = rows, steps, batch_size, first_step
        # A bar that was stopped cannot be started again.
        self.bar = Progress(*self.columns, console=self.console, transient=True, disable=not self.console.is_terminal)

    def say(self, line: str) -> None:
        """Print a line and append it to the log.

        Raises:
            RunError: If the log cannot be written (disk full).
        """
        self.console.print(line, soft_wrap=True, markup=False)
        try:
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise RunError(
                f"Could not write {self.log}: {error.strerror}. Free some space or choose another place."
            ) from error

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Show the bar."""
        self._begin = time.perf_counter()
        self._done = len(self.rows)
        self.task = self.bar.add_task(self.title, total=self.steps, status="")
        self.bar.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the epoch's bar."""
        self._epoch_start = time.perf_counter()
        waiting = "compiling" if len(self.rows) == self._done else ""  # until the first step of all is done
        self.bar.reset(self.task, description=f"{self.title} · epoch {epoch + 1}/{self.epochs}", status=waiting)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Advance the bar."""
        # Reading a metric waits for the device, so a loss is shown only where somebody sees it.
        if not self.bar.disable and logs:
            speed = (batch + 1) * self.batch_size / max(time.perf_counter() - self._epoch_start, 1e-9)
            memory = " + ".join(f"{gibibytes:.1f}" for gibibytes in peak_memory().values())
            text = (
                f"loss {float(logs['loss']):.4f} · mIoU {float(logs['miou']):.4f} · {speed:.0f} tiles/s · {memory} GiB"
            )
            self.bar.update(self.task, completed=self.first_step + batch + 1, status=text)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Print the epoch's line."""
        row = self.rows[-1]
        self.first_step = 0
        left = (self.epochs - epoch - 1) * (time.perf_counter() - self._begin) / (len(self.rows) - self._done)
        chosen = next((f" ({name.upper()})" for name in ("ema", "swa") if row.get(name)), "")
        if "val_loss" in row:
            figures = f"val loss {row['val_loss']:.4f}  mIoU {row['val_miou']:.4f}{chosen}"
        else:  # nothing is held out
            figures = f"training mIoU {row['miou']:.4f}"
        self.say(
            f"{self.title} · epoch {epoch + 1:3d}/{self.epochs}  loss {row['loss']:.4f}  {figures}  "
            f"{row['tiles_per_second']:.0f} tiles/s  {_clock(left)} left"
        )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
