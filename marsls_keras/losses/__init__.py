"""Losses on logits, composed by weights; pixels of weight 0 have no part in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marsls_keras.losses.pixel import positive_weight
from marsls_keras.losses.terms import LOSSES, read_loss

if TYPE_CHECKING:
    from marsls_keras.losses.compose import WeightedSum, build_loss

__all__ = ["LOSSES", "WeightedSum", "build_loss", "positive_weight", "read_loss"]


def __getattr__(name: str) -> Any:
    """Import what needs Keras when it is first asked for; reading a specification does not."""
    if name not in ("WeightedSum", "build_loss"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from marsls_keras.losses import compose

    return getattr(compose, name)
