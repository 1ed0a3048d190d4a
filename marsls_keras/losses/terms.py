"""The loss terms by name, and the validation of a specification; Keras is imported only when a term is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from marsls_keras.errors import InputError, listing
from marsls_keras.losses.boundary import boundary, boundary_dice
from marsls_keras.losses.parameters import fill_from_masks, read_term
from marsls_keras.losses.pixel import bce, center, focal, log_cosh, weighted_bce
from marsls_keras.losses.region import dice, iou, lovasz, tversky
from marsls_keras.plugins import find_object
from marsls_keras.suggestions import did_you_mean

LOSSES: dict[str, Callable[..., Any]] = {
    term.__name__: term
    for term in (bce, weighted_bce, focal, log_cosh, center, dice, iou, tversky, lovasz, boundary, boundary_dice)
}
"""Loss terms by name: functions of truth, logits and weight, all float32 (B, H, W, 1), to a scalar.

Their keyword-only arguments are the parameters."""


def read_loss(spec: dict[str, float | dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Validate a loss specification and return its terms, each with its weight and all parameters.

    Parameters that are computed from training masks may still be None.

    Args:
        spec: For each name in `LOSSES` a weight, or a section of `weight` (default 1) and parameters, such as
            {"bce": 0.5, "tversky": {"weight": 0.5, "alpha": 0.3}}. Terms of weight 0 are left out.

    Raises:
        InputError: If a term or parameter is unknown, a value has the wrong type or is out of range, or all weights are
            0.

    Example:
        >>> read_loss({"bce": 0.5})
        {'bce': {'weight': 0.5, 'label_smoothing': 0.0, 'reduction': 'pooled'}}
    """
    for name in spec:
        if name not in LOSSES and (term := find_object(str(name))) is not None:
            LOSSES[name] = term
    unknown = [str(name) for name in spec if name not in LOSSES]
    if unknown:
        raise InputError(
            f"loss: unknown {', '.join(unknown)}.{did_you_mean(unknown[0], LOSSES)} Known:{listing(sorted(LOSSES))}"
        )
    terms = {}
    for name, values in spec.items():
        if not isinstance(values, int | float | dict) or isinstance(values, bool):
            raise InputError(
                f"loss.{name}: expected a weight such as 0.5, or a section such as {{weight: 0.5}}. "
                f"Received: {values!r}"
            )
        term = read_term(name, LOSSES[name], values if isinstance(values, dict) else {"weight": values})
        if term["weight"]:
            terms[name] = term
    if not terms:
        raise InputError(
            f"loss: the weights of all terms are 0. Give one of them a weight, such as bce: 1. Received: {spec!r}"
        )
    return terms


def with_masks(terms: dict[str, dict[str, Any]], masks: np.ndarray | None) -> dict[str, dict[str, Any]]:
    """Compute the missing parameters of terms from training masks.

    Args:
        terms: The terms, as `read_loss` returns them.
        masks: Training masks {0, 1}, an integer array of any shape; None if there are none.

    Raises:
        InputError: If a term needs masks and there are none, or a computed value is out of range.

    Example:
        >>> with_masks(read_loss({"weighted_bce": 1}), np.array([0, 0, 1]))["weighted_bce"]["positive_weight"]
        2.0
    """
    return {name: fill_from_masks(name, LOSSES[name], term, masks) for name, term in terms.items()}
