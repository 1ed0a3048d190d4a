"""Keras metric of the mIoU of pooled confusion counts, the same as in `marsls_keras.counts`."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from marsls_keras.counts import Counts


class SegmentationCounts(keras.metrics.Metric):
    """Accumulate pooled confusion counts over batches; the result is the mIoU.

    The counts are integers, int64 under TensorFlow, else int32, which is exact up to 2 billion pixels. The result is
    not a mean over batches. `counts` returns all four counts.

    Args:
        threshold: Least probability of a pixel that becomes landslide.
        name: Name of the metric.
        **kwargs: Passed to keras.metrics.Metric.

    Call arguments:
        y_true: Masks (B, H, W, 1) of {0, 1}.
        y_pred: Logits (B, H, W, 1).
        sample_weight: Optional (B, H, W, 1); pixels of weight 0 are not counted.

    Raises:
        ValueError: If the threshold is not between 0 and 1.

    Example:
        >>> metric = SegmentationCounts()
        >>> metric.update_state(np.array([1.0, 1.0, 0.0, 0.0]), np.array([5.0, -5.0, -5.0, -5.0]))  # logits
        >>> metric.counts(), round(float(metric.result()), 4)  # mean of 1 / 2 and 2 / 3
        (Counts(tp=1, fp=0, fn=1, tn=2), 0.5833)
    """

    def __init__(self, threshold: float = 0.5, name: str = "miou", **kwargs: Any) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1. Received: {threshold}")
        super().__init__(name=name, **kwargs)
        self.threshold = threshold
        # "int" is int64 under TensorFlow. It keeps int32 variables on the CPU, which an XLA step on a GPU cannot use.
        self.cells = self.add_variable((4,), "zeros", dtype="int", name="cells")  # tp, fp, fn, tn

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add the counts of a batch of masks and logits."""
        truth = ops.cast(y_true, "float32") > 0.5
        # Logits are compared, since a saturated sigmoid would lose precision.
        logit = math.log(self.threshold / (1 - self.threshold))
        predicted = ops.cast(y_pred, "float32") >= logit
        used = (
            ops.ones_like(truth)
            if sample_weight is None
            else ops.broadcast_to(ops.cast(sample_weight, "float32") > 0, ops.shape(truth))
        )
        not_truth, not_predicted = ops.logical_not(truth), ops.logical_not(predicted)
        pairs = ((truth, predicted), (not_truth, predicted), (truth, not_predicted), (not_truth, not_predicted))
        counts = [ops.sum(ops.cast(ops.logical_and(ops.logical_and(a, b), used), "int32")) for a, b in pairs]
        self.cells.assign_add(ops.cast(ops.stack(counts), self.cells.dtype))

    def result(self) -> Any:
        """Return the mIoU so far, a float32 scalar; the IoU of an absent class is 1, as in `Counts.scores`."""
        tp, fp, fn, tn = ops.unstack(ops.cast(self.cells, "float32"), 4)
        wrong = fp + fn

        def iou(right: Any) -> Any:
            return ops.where(right + wrong > 0, right / ops.maximum(right + wrong, 1.0), 1.0)

        return (iou(tp) + iou(tn)) / 2

    def counts(self) -> Counts:
        """Return the counts since the last reset."""
        return Counts(*(int(cell) for cell in ops.convert_to_numpy(self.cells)))

    def reset_state(self) -> None:
        """Set all counts to 0."""
        self.cells.assign(ops.zeros((4,), self.cells.dtype))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the metric, for serialisation."""
        return {**super().get_config(), "threshold": self.threshold}
