"""Base class of the callbacks that save weights: weight sets, their files, and the state needed to resume."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np

from marsls_keras.config import Training
from marsls_keras.data.pipeline.batches import TrainingBatches
from marsls_keras.files import atomic
from marsls_keras.metrics import SegmentationCounts
from marsls_keras.training.callbacks.statistics_averaging import StatisticsAverage
from marsls_keras.training.weight_averaging import WeightMean, averaged_weights


class _Memory(io.BytesIO):
    """File in memory with a name that Keras accepts for weights.

    HDF5 must not write to the disk itself: if the disk is full, it prints hundreds of tracebacks and crashes the
    process.
    """

    def __str__(self) -> str:
        return "memory.weights.h5"


class WeightCheckpoint(keras.callbacks.Callback):
    """Base class of the callbacks that save weights: `BestCheckpoint` and `LastCheckpoint`.

    There are up to three weight sets: `last`, the trained weights; `ema`, the optimiser's moving average, if it has
    one, with batch-normalisation statistics averaged in the same way; and `swa`, the mean of the weights at the ends of
    the last `swa_epochs` epochs so far, with recalibrated statistics.

    Args:
        metric: The model's counting metric.
        folder: Folder of the weight files, best-<epoch>-<hash>.weights.h5. A file is never changed, so a saved state
            that names one stays valid.
        config: The section `training` of the configuration.
        training: The training batches; needed for `swa_epochs` only.

    Attributes:
        best: {"epoch", "miou", "weights", "file"} of the saved weights; epoch is -1 if there are none.
        waited: Epochs since the saved weights.
        statistics: The callback that averages batch-normalisation statistics, which must be called before the state is
            saved; None without `ema`.
        sound: Whether the loss of the trained weights was finite after the last epoch.

    Raises:
        ValueError: If `swa_epochs` is set without training batches.

    Example:
        >>> checkpoint = LastCheckpoint("last", metric, folder, Training())  # doctest: +SKIP
        >>> isinstance(checkpoint, WeightCheckpoint)  # doctest: +SKIP
        True
    """

    def __init__(
        self, metric: SegmentationCounts, folder: Path, config: Training, training: TrainingBatches | None = None
    ) -> None:
        super().__init__()
        if config.swa_epochs and training is None:
            raise ValueError("swa_epochs needs training batches, for the statistics of batch normalisation.")
        self.metric, self.folder, self.config, self.training = metric, folder, config, training
        self.best: dict[str, Any] = {"epoch": -1, "miou": float("-inf"), "weights": None, "file": None}
        self.waited = 0
        self.sound = True
        self.statistics = StatisticsAverage() if config.ema_decay is not None else None
        self._swa = WeightMean()
        self._saved: set[str] = set()  # the weight file that the last saved state names

    @property
    def stopped(self) -> bool:
        """Whether training has stopped early; without held-out tiles it never does."""
        return False

    def _candidates(self, epoch: int) -> Iterator[tuple[str, AbstractContextManager[None]]]:
        """Yield the name of each weight set of an epoch, and a context in which the model has these weights."""
        yield "last", nullcontext()
        if self.config.ema_decay is not None:
            yield "ema", averaged_weights(self.model, self.statistics)
        if self.training is not None and epoch >= self._swa_start:
            self._swa.add(self.model)
            steps = self.training.steps_per_epoch
            yield "swa", self._swa.lent(self.model, self.training.dataset(epoch * steps).take(steps))

    @property
    def _swa_start(self) -> int:
        """First epoch whose weights enter the mean `swa`."""
        return self.config.epochs - self.config.swa_epochs

    def _content(self) -> bytes:
        """Return the current weights as the content of an HDF5 file."""
        file = _Memory()
        # Inference does not need the state of the optimiser.
        keras.saving.save_weights(self.model, file, objects_to_skip=[self.model.optimizer])
        return file.getvalue()

    def _written(self, epoch: int, score: float | None, weights: str, content: bytes) -> dict[str, Any]:
        """Write a weight file and return the new value of `best`."""
        name = f"best-{epoch:05d}-{hashlib.sha256(content).hexdigest()[:8]}.weights.h5"
        with atomic(self.folder / name) as temporary:
            temporary.write_bytes(content)
        return {"epoch": epoch, "miou": score, "weights": weights, "file": name}

    def tidy(self) -> None:
        """Remove weight files that neither of the last two saved states names.

        Must be called after each saving of the state. The second-last state keeps its file in case the last state is
        damaged.
        """
        files = self._files()
        for path in self.folder.glob("best-*.weights.h5"):
            if path.name not in files | self._saved:
                path.unlink()
        self._saved = files

    def _files(self) -> set[str]:
        """Return the name of the current weight file; empty if there is none."""
        return {self.best["file"]} if self.best["file"] else set()

    def state(self) -> dict[str, Any]:
        """Return the JSON-serialisable part of the state that `restore` takes."""
        return {"best": self.best, "waited": self.waited, "swa": {"start": self._swa_start, "count": self._swa.count}}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that `restore` takes: the sums of the mean `swa`, and the average of the statistics."""
        average = None if self.statistics is None else self.statistics.values
        ema = {} if average is None else {"ema_statistics": keras.ops.convert_to_numpy(average)}
        return ema | {f"swa_{i}": total for i, total in enumerate(self._swa.sums)}

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Restore the results of `state` and `arrays`.

        The mean `swa` starts anew if it was over other epochs than the configuration sets now.
        """
        self.best, self.waited = state["best"], state["waited"]
        self._saved = self._files()
        self._swa = WeightMean()
        if state["swa"]["start"] == self._swa_start:
            self._swa.count = state["swa"]["count"]
            self._swa.sums = [arrays[f"swa_{i}"] for i in range(sum(name.startswith("swa_") for name in arrays))]
        if self.statistics is not None:
            # States of earlier versions have none; the average then starts anew.
            self.statistics.values = arrays.get("ema_statistics")
