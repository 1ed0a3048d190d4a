"""Show the progress of a training on stderr: a progress bar on a terminal, and one line per epoch, also in log.txt."""

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
    """Show a progress bar, and print one line per epoch.

    The caller of `fit` must call `bar.stop` afterwards, also if `fit` raises.

    Args:
        title: Name of the training, such as "default fold 0".
        epochs: Total number of epochs.
        log: File to which the lines are appended.

    Example:
        >>> progress = ProgressDisplay("default fold 0", epochs=60, log=Path("log.txt"))
        >>> progress.say("Resuming after epoch 3.")
        >>> Path("log.txt").read_text().splitlines()
        ['Resuming after epoch 3.']
        >>> progress.follow(rows, steps=25, batch_size=16)  # doctest: +SKIP
        >>> model.fit(batches, epochs=60, callbacks=[progress])  # doctest: +SKIP
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
        """Set the history and the epoch length that the following training is shown with.

        Args:
            rows: Rows of history.csv, read after each epoch.
            steps: Steps per epoch.
            batch_size: Tiles per step.
            first_step: Steps of the first epoch that were finished before.
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
        """Start the progress bar."""
        self._begin = time.perf_counter()
        self._done = len(self.rows)
        self.task = self.bar.add_task(self.title, total=self.steps, status="")
        self.bar.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Reset the progress bar for the epoch."""
        self._epoch_start = time.perf_counter()
        waiting = "compiling" if len(self.rows) == self._done else ""  # until the first step is done
        self.bar.reset(self.task, description=f"{self.title} · epoch {epoch + 1}/{self.epochs}", status=waiting)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Advance the progress bar, and show loss, mIoU, speed and memory beside it."""
        # Reading a metric waits for the device, so it is done only if the bar is visible.
        if not self.bar.disable and logs:
            speed = (batch + 1) * self.batch_size / max(time.perf_counter() - self._epoch_start, 1e-9)
            memory = " + ".join(f"{gibibytes:.1f}" for gibibytes in peak_memory().values())
            text = (
                f"loss {float(logs['loss']):.4f} · mIoU {float(logs['miou']):.4f} · {speed:.0f} tiles/s · {memory} GiB"
            )
            self.bar.update(self.task, completed=self.first_step + batch + 1, status=text)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Print the line of the epoch: loss, scores, speed and the remaining time."""
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
    """Format seconds as h:mm:ss or m:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
