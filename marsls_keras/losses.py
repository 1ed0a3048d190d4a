"""Losses on logits, composed by weights; pixels of weight 0 have no part in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from marsls_keras.errors import InputError, listing

Term = Callable[[Any, Any, Any], Any]


def bce(truth: Any, logits: Any, weight: Any) -> Any:
    """Return the binary cross-entropy, a mean over all pixels of nonzero weight."""
    return ops.sum(ops.binary_crossentropy(truth, logits, from_logits=True) * weight) / ops.maximum(ops.sum(weight), 1.0)


def dice(truth: Any, logits: Any, weight: Any) -> Any:
    """Return 1 - soft Dice, sums over the whole batch; with 1 added to both sides, an empty mask predicted empty costs nothing.

    Milletari et al., "V-Net", 3DV 2016.
    """
    probability = ops.sigmoid(logits) * weight
    both = ops.sum(probability * truth)
    return 1 - (2 * both + 1) / (ops.sum(probability) + ops.sum(truth * weight) + 1)


LOSSES: dict[str, Term] = {"bce": bce, "dice": dice}
"""Terms by name: functions of truth, logits and weight, all (B, H, W, 1) float32, to a scalar."""


class WeightedSum(keras.losses.Loss):
    """A weighted sum of loss terms.

    Args:
        terms: Weight per name in `LOSSES`.
        name: Name of the loss.

    Call arguments:
        y_true: Masks (B, H, W, 1) of {0, 1}.
        y_pred: Logits (B, H, W, 1), any float type; computed in float32.
        sample_weight: Optional (B, H, W, 1); pixels of weight 0 are ignored.

    Returns:
        A float32 scalar.

    Example:
        >>> loss = WeightedSum({"bce": 0.5, "dice": 0.5})
    """

    def __init__(self, terms: dict[str, float], name: str = "loss") -> None:
        # Every term does its own reduction, since a pooled Dice has no per-sample values.
        super().__init__(name=name, reduction="sum", dtype="float32")
        self.terms = dict(terms)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the loss of a batch."""
        truth, logits = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        weight = ops.ones_like(truth) if sample_weight is None else ops.broadcast_to(ops.cast(sample_weight, "float32"), ops.shape(truth))
        return sum(factor * LOSSES[name](truth, logits, weight) for name, factor in self.terms.items())

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"terms": self.terms, "name": self.name}


def build_loss(spec: dict[str, float]) -> WeightedSum:
    """Return the loss of a specification such as {"bce": 0.5, "dice": 0.5}.

    Raises:
        InputError: If a name is unknown.
    """
    unknown = [name for name in spec if name not in LOSSES]
    if unknown:
        raise InputError(f"loss: unknown {', '.join(unknown)}. Known:{listing(sorted(LOSSES))}")
    return WeightedSum({name: weight for name, weight in spec.items() if weight})
