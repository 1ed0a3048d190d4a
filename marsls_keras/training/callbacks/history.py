"""The history of a training: a row an epoch in history.csv."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import keras

from marsls_keras.files import write_text
from marsls_keras.runs.run import history_text


class HistoryLog(keras.callbacks.Callback):
    """Complete the epoch's logs with learning rate, seconds and speed, and write them to history.csv.

    Args:
        path: Where history.csv goes.
        rows: The history so far; grows by a row an epoch.
        tiles: Training tiles an epoch.

    Example:
        >>> log = HistoryLog(folder / "history.csv", rows=[], tiles=400)  # doctest: +SKIP
        >>> model.fit(batches, epochs=60, callbacks=[log])  # doctest: +SKIP
    """

    def __init__(self, path: Path, rows: list[dict[str, float]], tiles: int) -> None:
        super().__init__()
        self.path, self.rows, self.tiles = path, rows, tiles

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        self._start = time.perf_counter()
        self._trained = self._start

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Note when training ended, so that evaluation does not count as training speed."""
        self._trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Write the row."""
        row = {"epoch": epoch, "loss": logs["loss"], "miou": logs["miou"]}
        row |= {name: float(value) for name, value in logs.items() if name not in row}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row["seconds"] = round(time.perf_counter() - self._start, 3)
        row["tiles_per_second"] = round(self.tiles / max(self._trained - self._start, 1e-9), 2)
        self.rows.append(row)
        write_text(self.path, history_text(self.rows))
