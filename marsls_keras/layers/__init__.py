"""Layers of the networks, one idea a file."""

from marsls_keras.layers.batch_norm import BatchNormalization
from marsls_keras.layers.pen_attention import PenAttention
from marsls_keras.layers.progressive_expansion import ProgressiveExpansion
from marsls_keras.layers.spatial_attention import SpatialAttention

__all__ = ["BatchNormalization", "PenAttention", "ProgressiveExpansion", "SpatialAttention"]
