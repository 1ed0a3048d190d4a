"""The loss terms by name, their weighted sum, and building it from a specification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from marsls_keras.errors import InputError, listing
from marsls_keras.losses.boundary import boundary, boundary_dice
from marsls_keras.losses.parameters import read_term
from marsls_keras.losses.pixel import bce, center, focal, log_cosh, weighted_bce
from marsls_keras.losses.region import dice, iou, lovasz, tversky
from marsls_keras.losses.sums import replicas

LOSSES: dict[str, Callable[..., Any]] = {
    term.__name__: term for term in (bce, weighted_bce, focal, log_cosh, center, dice, iou, tversky, lovasz, boundary, boundary_dice)
}
"""Terms by name: functions of truth, logits and weight, all (B, H, W, 1) float32, to a scalar; keyword-only arguments are parameters."""


class WeightedSum(keras.losses.Loss):
    """A weighted sum of loss terms, usually made by `build_loss`.

    If several devices share a batch (tf.distribute), each gets its part of the whole batch's loss, such that Keras' sum over the devices is
    that loss and its gradient; the loss that `fit` and `evaluate` show is that of the whole batch as well.

    Args:
        terms: For each name in `LOSSES` its "weight" and parameters.
        name: Name of the loss.

    Call arguments:
        y_true: Masks (B, H, W, 1) of {0, 1}.
        y_pred: Logits (B, H, W, 1), any float type; computed in float32.
        sample_weight: Optional (B, H, W, 1), 0 or more; a pixel of weight 0 has no part in any term, whatever its truth and logit are.

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
            logits = ops.where(weight > 0, logits, 0.0)  # weight 0 times infinity would be no number
        total = 0.0
        for name, parameters in self.terms.items():
            options = {key: value for key, value in parameters.items() if key != "weight"}
            total += parameters["weight"] * LOSSES[name](truth, logits, weight, **options)
        return total if replicas() == 1 else total / replicas()

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"terms": self.terms, "name": self.name}


def build_loss(spec: dict[str, float | dict[str, Any]], positive_weight: float | None = None) -> WeightedSum:
    """Return the loss of a specification.

    Args:
        spec: For each name in `LOSSES` a weight, or a section of `weight` (default 1) and parameters, such as
            {"bce": 0.5, "tversky": {"weight": 0.5, "alpha": 0.3}}. Terms of weight 0 are left out.
        positive_weight: The w⁺ of weighted_bce where the specification has none; see `marsls_keras.losses.positive_weight`.

    Raises:
        InputError: If a term or parameter is unknown, a value has the wrong type or is out of range, all weights are 0, or weighted_bce
            has no w⁺.
    """
    unknown = [str(name) for name in spec if name not in LOSSES]
    if unknown:
        raise InputError(f"loss: unknown {', '.join(unknown)}. Known:{listing(sorted(LOSSES))}")
    terms = {}
    for name, values in spec.items():
        if not isinstance(values, int | float | dict) or isinstance(values, bool):
            raise InputError(f"loss.{name}: expected a weight such as 0.5, or a section such as {{weight: 0.5}}. Received: {values!r}")
        term = read_term(name, LOSSES[name], values if isinstance(values, dict) else {"weight": values})
        if term["weight"]:
            terms[name] = term
    if not terms:
        raise InputError(f"loss: the weights of all terms are 0. Give one of them a weight, such as bce: 1. Received: {spec!r}")
    if "weighted_bce" in terms and terms["weighted_bce"]["positive_weight"] is None:
        if not positive_weight:
            raise InputError(
                "loss.weighted_bce.positive_weight: expected a number above 0, since the training tiles do not give one: it is their "
                f"N_neg / N_pos. Received: {positive_weight!r}"
            )
        terms["weighted_bce"]["positive_weight"] = float(positive_weight)
    return WeightedSum(terms)
