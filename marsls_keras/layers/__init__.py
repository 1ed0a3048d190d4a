"""Keras layers of the networks."""

from marsls_keras.layers.batch_norm import BatchNormalization
from marsls_keras.layers.blend import Blend
from marsls_keras.layers.cbam import CBAM
from marsls_keras.layers.convnext import ConvNeXtBlock, GlobalResponseNormalization
from marsls_keras.layers.dimension_attention import DimensionAttention
from marsls_keras.layers.drop_path import DropPath
from marsls_keras.layers.efficient_channel_attention import EfficientChannelAttention
from marsls_keras.layers.gate import Gate
from marsls_keras.layers.learnable_affine import LearnableAffine
from marsls_keras.layers.mask_heads import ChannelMean, MeanProbability
from marsls_keras.layers.mix_transformer import MixTransformerBlock, ReducedAttention
from marsls_keras.layers.patch_expanding import PatchExpanding
from marsls_keras.layers.pen_attention import PenAttention
from marsls_keras.layers.position_embedding import PositionEmbedding
from marsls_keras.layers.progressive_expansion import ProgressiveExpansion
from marsls_keras.layers.pyramid_pooling import AdaptivePooling
from marsls_keras.layers.res_conv import ResConv
from marsls_keras.layers.resize_like import ResizeLike
from marsls_keras.layers.rotary_attention import RotaryAttention, RotaryBlock
from marsls_keras.layers.spatial_attention import SpatialAttention
from marsls_keras.layers.squeeze_excitation import SqueezeExcitation
from marsls_keras.layers.standardized_conv import StandardizedConv2D
from marsls_keras.layers.swin import BiasedWindowAttention, PatchMerging, SwinBlock
from marsls_keras.layers.swin_v2 import SwinV2Block, WindowAttention
from marsls_keras.layers.upsample import UpsampleBilinear
from marsls_keras.layers.vision_transformer import PositionedTokens, PrefixedTokens, TokensToMap, TransformerBlock

__all__ = [
    "CBAM",
    "AdaptivePooling",
    "BatchNormalization",
    "BiasedWindowAttention",
    "Blend",
    "ChannelMean",
    "ConvNeXtBlock",
    "DimensionAttention",
    "DropPath",
    "EfficientChannelAttention",
    "Gate",
    "GlobalResponseNormalization",
    "LearnableAffine",
    "MeanProbability",
    "MixTransformerBlock",
    "PatchExpanding",
    "PatchMerging",
    "PenAttention",
    "PositionEmbedding",
    "PositionedTokens",
    "PrefixedTokens",
    "ProgressiveExpansion",
    "ReducedAttention",
    "ResConv",
    "ResizeLike",
    "RotaryAttention",
    "RotaryBlock",
    "SpatialAttention",
    "SqueezeExcitation",
    "StandardizedConv2D",
    "SwinBlock",
    "SwinV2Block",
    "TokensToMap",
    "TransformerBlock",
    "UpsampleBilinear",
    "WindowAttention",
]
