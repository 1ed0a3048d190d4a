"""Write the history of a training to history.csv, one row per epoch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import keras

from marsls_keras.files import write_text
from marsls_keras.runs.run import history_text


class HistoryLog(keras.callbacks.Callback):
    """Write the logs of each epoch, with learning rate, seconds and speed, to history.csv.

    Args:
        path: Path of history.csv.
        rows: Rows so far; one is appended per epoch.
        tiles: Training tiles per epoch; in a resumed epoch, those that are left.

    Example:
        >>> log = HistoryLog(folder / "history.csv", rows=[], tiles=400)  # doctest: +SKIP
        >>> model.fit(batches, epochs=60, callbacks=[log])  # doctest: +SKIP
    """

    def __init__(self, path: Path, rows: list[dict[str, float]], tiles: int) -> None:
        super().__init__()
        self.path, self.rows, self.tiles = path, rows, tiles

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start timing the epoch."""
        self._start = time.perf_counter()
        self._trained = self._start

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the time of the last training step, so that speed excludes evaluation."""
        self._trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Append the row of the epoch and write history.csv."""
        row = {"epoch": epoch, "loss": logs["loss"], "miou": logs["miou"]}
        row |= {name: float(value) for name, value in logs.items() if name not in row}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row["seconds"] = round(time.perf_counter() - self._start, 3)
        row["tiles_per_second"] = round(self.tiles / max(self._trained - self._start, 1e-9), 2)
        self.rows.append(row)
        write_text(self.path, history_text(self.rows))
