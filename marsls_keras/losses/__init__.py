"""Losses on logits, composed by weights; pixels of weight 0 have no part in them."""

from marsls_keras.losses.compose import LOSSES, WeightedSum, build_loss
from marsls_keras.losses.pixel import positive_weight

__all__ = ["LOSSES", "WeightedSum", "build_loss", "positive_weight"]
