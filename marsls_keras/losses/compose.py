"""Weighted sum of loss terms, built from a specification."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from marsls_keras.losses.sums import replicas
from marsls_keras.losses.terms import LOSSES, read_loss, with_masks


class WeightedSum(keras.losses.Loss):
    """Weighted sum of loss terms, usually made by `build_loss`.

    If several devices share a batch (tf.distribute), each computes its share of the whole batch's loss, so that the sum
    that Keras takes over the devices is that loss, with its gradient. `fit` and `evaluate` also show the loss of the
    whole batch.

    Args:
        terms: The "weight" and parameters of each term, by its name in `LOSSES`.
        name: Name of the loss.

    Call arguments:
        y_true: Masks (B, H, W, 1) of {0, 1}.
        y_pred: Logits (B, H, W, 1), any float type; computed in float32.
        sample_weight: Optional (B, H, W, 1), 0 or more; a pixel of weight 0 is ignored by all terms, whatever its truth
            and logit are.

    Returns:
        A float32 scalar.

    Example:
        >>> loss = WeightedSum({"bce": {"weight": 0.5, "label_smoothing": 0.1}, "dice": {"weight": 0.5}})
    """

    def __init__(self, terms: dict[str, dict[str, Any]], name: str = "loss") -> None:
        # Every term does its own reduction, since a pooled Dice has no per-sample values.
        super().__init__(name=name, reduction="sum", dtype="float32")
        self.terms = {term: dict(parameters) for term, parameters in terms.items()}

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the loss of a batch."""
        truth, logits = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        if sample_weight is None:
            weight = ops.ones_like(truth)
        else:
            weight = ops.broadcast_to(ops.cast(sample_weight, "float32"), ops.shape(truth))
            logits = ops.where(weight > 0, logits, 0.0)  # 0 times infinity would be NaN
        total = 0.0
        for name, parameters in self.terms.items():
            options = {key: value for key, value in parameters.items() if key != "weight"}
            total += parameters["weight"] * LOSSES[name](truth, logits, weight, **options)
        return total if replicas() == 1 else total / replicas()

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"terms": self.terms, "name": self.name}


def build_loss(spec: dict[str, float | dict[str, Any]], masks: np.ndarray | None = None) -> WeightedSum:
    """Build the loss of a specification.

    Args:
        spec: The specification, see `marsls_keras.losses.read_loss`.
        masks: Training masks {0, 1}, an integer array of any shape, from which missing parameters are computed, such
            as the w⁺ of weighted_bce.

    Raises:
        InputError: As `read_loss` does, or if a term needs masks and there are none.

    Example:
        >>> build_loss({"weighted_bce": 1}, np.array([0, 0, 1])).terms["weighted_bce"]["positive_weight"]
        2.0
    """
    return WeightedSum(with_masks(read_loss(spec), masks))
