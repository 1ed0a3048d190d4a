"""The loss terms by name, and reading a specification of them; Keras is not imported before a term is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from marsls_keras.errors import InputError, listing
from marsls_keras.losses.boundary import boundary, boundary_dice
from marsls_keras.losses.parameters import read_term
from marsls_keras.losses.pixel import bce, center, focal, log_cosh, weighted_bce
from marsls_keras.losses.region import dice, iou, lovasz, tversky
from marsls_keras.suggestions import did_you_mean

LOSSES: dict[str, Callable[..., Any]] = {
    term.__name__: term for term in (bce, weighted_bce, focal, log_cosh, center, dice, iou, tversky, lovasz, boundary, boundary_dice)
}
"""Terms by name: functions of truth, logits and weight, all (B, H, W, 1) float32, to a scalar; keyword-only arguments are parameters."""


def read_loss(spec: dict[str, float | dict[str, Any]], positive_weight: float | None = None) -> dict[str, dict[str, Any]]:
    """Return the terms of a specification, each with its weight and all parameters, as `WeightedSum` takes them.

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
        raise InputError(f"loss: unknown {', '.join(unknown)}.{did_you_mean(unknown[0], LOSSES)} Known:{listing(sorted(LOSSES))}")
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
    return terms
