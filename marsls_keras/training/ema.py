"""At the end of every epoch: evaluate the weights and their moving average, and keep whichever is the best so far."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from marsls_keras.files import atomic
from marsls_keras.metrics import SegmentationCounts


@contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Give the model the optimiser's moving average of its trainable weights within the block, and its own weights back after it.

    The moving statistics of batch normalisation are running averages already and stay.
    """
    own = [np.copy(keras.ops.convert_to_numpy(variable)) for variable in model.trainable_variables]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    for variable in model.trainable_variables:
        # Under JAX the variable now shares its buffer with the average, and a step that donates the one would delete the other.
        variable.assign(keras.ops.copy(variable.value))
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, own, strict=True):
            variable.assign(value)


class _Memory(io.BytesIO):
    """A file in memory under the name that Keras asks for.

    HDF5 is not let near the disk: where a file of its own cannot grow, it prints hundreds of tracebacks and crashes the process.
    """

    def __str__(self) -> str:
        return "memory.weights.h5"


class KeepBest(keras.callbacks.Callback):
    """Evaluate on the held-out tiles and save the weights with the highest pooled mIoU (DualSwinFusionSeg, section "Optimisation").

    Adds to the epoch's logs: val_loss and the scores val_miou, val_iou_fg, … of the better of both weight sets, miou_last and miou_ema
    of each, and `ema`, 1 if the average was the better one.

    Args:
        batches: Evaluation batches.
        metric: The model's counting metric.
        path: Where the best weights go.
        ema: Whether the optimiser keeps a moving average.
    """

    def __init__(self, batches: Any, metric: SegmentationCounts, path: Path, ema: bool) -> None:
        super().__init__()
        self.batches, self.metric, self.path, self.ema = batches, metric, path, ema
        self.best: dict[str, Any] = {"epoch": -1, "miou": float("-inf")}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Evaluate, and save if better; equal is not better, so the earliest best epoch stays."""
        last = self._evaluate()
        if self.ema:
            with averaged_weights(self.model):
                average = self._evaluate()
                better = average["val_miou"] > last["val_miou"]
                if better:
                    self._keep(epoch, average, "ema")
            logs["miou_ema"] = average["val_miou"]
            logs["ema"] = float(better)
            chosen = average if better else last
        else:
            better, chosen = False, last
        if not better:
            self._keep(epoch, last, "last")
        logs["miou_last"] = last["val_miou"]
        logs.update(chosen)

    def _evaluate(self) -> dict[str, float]:
        loss = self.model.evaluate(self.batches, verbose=0, return_dict=True)["loss"]
        scores = self.metric.counts().scores()
        return {"val_loss": float(loss), **{f"val_{name}": value for name, value in scores.items()}}

    def _keep(self, epoch: int, result: dict[str, float], weights: str) -> None:
        # Weights that are no numbers predict background everywhere, which has a score too.
        if result["val_miou"] > self.best["miou"] and math.isfinite(result["val_loss"]):
            file = _Memory()
            keras.saving.save_weights(self.model, file, objects_to_skip=[self.model.optimizer])  # inference has no use for its state
            with atomic(self.path) as temporary:
                temporary.write_bytes(file.getbuffer())
            self.best = {"epoch": epoch, "miou": result["val_miou"], "weights": weights}
