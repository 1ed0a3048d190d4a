"""Weights that a training leaves behind: the last ones and their averages, files that never change, and the state to go on from."""

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
    """A file in memory under the name that Keras asks for.

    HDF5 is not let near the disk: where a file of its own cannot grow, it prints hundreds of tracebacks and crashes the
    process.
    """

    def __str__(self) -> str:
        return "memory.weights.h5"


class WeightCheckpoint(keras.callbacks.Callback):
    """Base of the callbacks that keep weights: `BestCheckpoint` by the score on held-out tiles, `LastCheckpoint` those of the last epoch.

    There are up to three sets of weights: `last`, those that are trained; `ema`, the optimiser's moving average, if it
    has one, with statistics of batch normalisation that were averaged likewise; and `swa`, the mean over the ends of
    the last `swa_epochs` epochs so far, with statistics that were estimated anew.

    Args:
        metric: The model's counting metric.
        folder: Where the weights go, as best-<epoch>-<hash>.weights.h5. A file never changes, so a state that names one
            stays right.
        config: The section `training` of the configuration.
        training: The training batches; needed for `swa_epochs` only.

    Attributes:
        best: {"epoch", "miou", "weights", "file"} of what is kept so far; epoch is -1 if there is nothing.
        waited: Epochs since then.
        statistics: What averages those of batch normalisation, to be called after each step, before a state is saved;
            None without `ema`.
        sound: Whether the weights that are trained gave a loss that is a number, after the last epoch.

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
        self._saved: set[str] = set()  # the files of what was the best when the state was last saved

    @property
    def stopped(self) -> bool:
        """Whether so many epochs brought nothing better that training is over."""
        return False

    def _candidates(self, epoch: int) -> Iterator[tuple[str, AbstractContextManager[None]]]:
        yield "last", nullcontext()
        if self.config.ema_decay is not None:
            yield "ema", averaged_weights(self.model, self.statistics)
        if self.training is not None and epoch >= self._swa_start:
            self._swa.add(self.model)
            steps = self.training.steps_per_epoch
            yield "swa", self._swa.lent(self.model, self.training.dataset(epoch * steps).take(steps))

    @property
    def _swa_start(self) -> int:
        return self.config.epochs - self.config.swa_epochs

    def _content(self) -> bytes:
        file = _Memory()
        keras.saving.save_weights(
            self.model, file, objects_to_skip=[self.model.optimizer]
        )  # inference has no use for its state
        return file.getvalue()

    def _written(self, epoch: int, score: float | None, weights: str, content: bytes) -> dict[str, Any]:
        """Write the content of a file of weights and return what `best` says of it."""
        name = f"best-{epoch:05d}-{hashlib.sha256(content).hexdigest()[:8]}.weights.h5"
        with atomic(self.folder / name) as temporary:
            temporary.write_bytes(content)
        return {"epoch": epoch, "miou": score, "weights": weights, "file": name}

    def tidy(self) -> None:
        """Remove the files of earlier bests, except that of the state before the last one, should the last one be damaged.

        To be called after each saving of the state, which names its best files.
        """
        files = self._files()
        for path in self.folder.glob("best-*.weights.h5"):
            if path.name not in files | self._saved:
                path.unlink()
        self._saved = files

    def _files(self) -> set[str]:
        return {self.best["file"]} if self.best["file"] else set()

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, but for the arrays, as JSON."""
        return {"best": self.best, "waited": self.waited, "swa": {"start": self._swa_start, "count": self._swa.count}}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that `restore` needs: the sums of the weights over the last epochs, and the average of the statistics."""
        average = None if self.statistics is None else self.statistics.values
        ema = {} if average is None else {"ema_statistics": keras.ops.convert_to_numpy(average)}
        return ema | {f"swa_{i}": total for i, total in enumerate(self._swa.sums)}

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Go on from what `state` and `arrays` returned; a mean over other epochs than now asked for begins anew."""
        self.best, self.waited = state["best"], state["waited"]
        self._saved = self._files()
        self._swa = WeightMean()
        if state["swa"]["start"] == self._swa_start:
            self._swa.count = state["swa"]["count"]
            self._swa.sums = [arrays[f"swa_{i}"] for i in range(sum(name.startswith("swa_") for name in arrays))]
        if self.statistics is not None:
            self.statistics.values = arrays.get(
                "ema_statistics"
            )  # states of earlier versions have none: the average begins anew
