"""Keep the weights of the last epoch, for a training without held-out tiles."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from marsls_keras.config import Training
from marsls_keras.data.pipeline.batches import TrainingBatches
from marsls_keras.metrics import SegmentationCounts
from marsls_keras.training.callbacks.weight_checkpoint import WeightCheckpoint


class LastCheckpoint(WeightCheckpoint):
    """Save one weight set at the end of the last epoch, without any evaluation.

    Args:
        weights: The weight set, as in `WeightCheckpoint`: "last", "ema" or "swa".
        metric: As in `WeightCheckpoint`.
        folder: As in `WeightCheckpoint`.
        config: As in `WeightCheckpoint`.
        training: As in `WeightCheckpoint`.

    Example:
        >>> checkpoint = LastCheckpoint("ema", metric, folder, Training(epochs=30))  # doctest: +SKIP
        >>> model.fit(batches, epochs=30, callbacks=[checkpoint])  # doctest: +SKIP
        >>> checkpoint.best["epoch"]  # doctest: +SKIP
        29
    """

    def __init__(
        self,
        weights: str,
        metric: SegmentationCounts,
        folder: Path,
        config: Training,
        training: TrainingBatches | None = None,
    ) -> None:
        super().__init__(metric, folder, config, training)
        self.weights = weights

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Record whether the loss is finite, and save the weight set if this was the last epoch."""
        self.sound = math.isfinite(logs["loss"])
        for name, lent in self._candidates(epoch):
            if name == self.weights and epoch + 1 == self.config.epochs:
                with lent:
                    self.best = self._written(epoch, None, name, self._content())
