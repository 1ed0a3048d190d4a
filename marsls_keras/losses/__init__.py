"""Loss terms on logits and their weighted sum; pixels of weight 0 are ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marsls_keras.losses.pixel import positive_weight
from marsls_keras.losses.terms import LOSSES, read_loss

if TYPE_CHECKING:
    from marsls_keras.losses.compose import WeightedSum, build_loss

__all__ = ["LOSSES", "WeightedSum", "build_loss", "positive_weight", "read_loss"]


def __getattr__(name: str) -> Any:
    """Import the names that need Keras at first use, so that a specification can be read without Keras."""
    if name not in ("WeightedSum", "build_loss"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from marsls_keras.losses import compose

    return getattr(compose, name)
