"""Keep the best weights: evaluate every weight set after each epoch, save the best one, and stop early."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from marsls_keras.config import Training
from marsls_keras.data.pipeline.batches import TrainingBatches
from marsls_keras.metrics import SegmentationCounts
from marsls_keras.training.callbacks.weight_checkpoint import WeightCheckpoint


class BestCheckpoint(WeightCheckpoint):
    """Evaluate on the held-out tiles after each epoch, and save the weights with the highest pooled mIoU.

    Source: DualSwinFusionSeg, section "Optimisation". All weight sets of `WeightCheckpoint` are compared; of equal ones
    the first set and the earlier epoch win. Weights with a NaN or infinite loss are never kept.

    Adds to the logs of the epoch: val_loss and the scores val_miou, val_iou_fg, … of the best set; the mIoU of each set
    as miou_last, miou_ema and miou_swa (NaN before the last `swa_epochs` epochs); and `ema` and `swa`, 1 for the set
    that was best, else 0.

    Args:
        batches: Batches of the held-out tiles.
        metric: The model's counting metric.
        folder: As in `WeightCheckpoint`.
        config: As in `WeightCheckpoint`.
        training: As in `WeightCheckpoint`.

    Example:
        >>> checkpoint = BestCheckpoint(batches, metric, folder, Training())  # doctest: +SKIP
        >>> model.fit(training_batches, epochs=60, callbacks=[checkpoint])  # doctest: +SKIP
        >>> checkpoint.best["epoch"], checkpoint.best["weights"]  # doctest: +SKIP
        (41, 'ema')
    """

    def __init__(
        self,
        batches: Any,
        metric: SegmentationCounts,
        folder: Path,
        config: Training,
        training: TrainingBatches | None = None,
    ) -> None:
        super().__init__(metric, folder, config, training)
        self.batches = batches

    @property
    def stopped(self) -> bool:
        """Whether the last `patience` epochs brought no better weights."""
        return self.config.patience is not None and self.waited >= self.config.patience

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Evaluate all weight sets, save the best one if it beats the best so far, and stop early if `stopped`."""
        names = self.config.weight_sets
        logs.update({f"miou_{name}": math.nan for name in names})
        chosen, winner, content = (False, -1.0), "", b""
        for name, lent in self._candidates(epoch):
            with lent:
                result = self._evaluate()
                # Weights of NaN predict background everywhere, which would have a score as well.
                rank = math.isfinite(result["val_loss"]), result["val_miou"]
                if rank > chosen:
                    chosen, winner = rank, name
                    logs.update(result)
                    content = self._content() if rank > (True, self.best["miou"]) else b""
            if name == "last":
                self.sound = math.isfinite(result["val_loss"])
            logs[f"miou_{name}"] = result["val_miou"]
        logs.update({name: float(winner == name) for name in names[1:]})
        better = chosen > (True, self.best["miou"])
        if better:
            self.best = self._written(epoch, chosen[1], winner, content)
        self.waited = 0 if better else self.waited + 1
        if self.stopped:
            self.model.stop_training = True

    def _evaluate(self) -> dict[str, float]:
        """Return loss and scores of the current weights on the held-out tiles."""
        loss = self.model.evaluate(self.batches, verbose=0, return_dict=True)["loss"]
        scores = self.metric.counts().scores()
        return {"val_loss": float(loss), **{f"val_{name}": value for name, value in scores.items()}}
