"""Layers of the networks, one idea a file."""

from marsls_keras.layers.batch_norm import BatchNormalization
from marsls_keras.layers.cbam import CBAM
from marsls_keras.layers.channel_attention import SqueezeExcitation
from marsls_keras.layers.dimension_attention import DimensionAttention
from marsls_keras.layers.mask_heads import ChannelMean, MeanProbability
from marsls_keras.layers.pen_attention import PenAttention
from marsls_keras.layers.progressive_expansion import ProgressiveExpansion
from marsls_keras.layers.res_conv import ResConv
from marsls_keras.layers.spatial_attention import SpatialAttention

__all__ = [
    "CBAM",
    "BatchNormalization",
    "ChannelMean",
    "DimensionAttention",
    "MeanProbability",
    "PenAttention",
    "ProgressiveExpansion",
    "ResConv",
    "SpatialAttention",
    "SqueezeExcitation",
]
