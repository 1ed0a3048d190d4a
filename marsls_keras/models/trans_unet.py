"""TransUNet: a ResNet, a vision transformer on its last map, and a U-Net decoder on the maps of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from marsls_keras.layers import PositionEmbedding, StandardizedConv2D, TransformerBlock, UpsampleBilinear
from marsls_keras.models.decoders.blocks import conv_bn_relu

_GROUPS = 32
"""Groups of the group normalisation."""


def trans_unet(
    bands: int = 7,
    *,
    width: int = 64,
    units: Sequence[int] = (3, 4, 9),
    embed_dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    decoder_channels: Sequence[int] = (256, 128, 64, 16),
    grid: int = 8,
    dropout: float = 0.1,
    drop_path: float = 0.0,
) -> keras.Model:
    """Build TransUNet: a ResNet to stride 16, a vision transformer on its pixels, and a U-Net decoder.

    The ResNet has a convolution 7 x 7 with stride 2, max pooling, and three stages of bottleneck units at strides 4, 8
    and 16, with standardised kernels and group normalisation. Each pixel at stride 16 is a token of the transformer.
    The decoder doubles the size four times, each time with two Conv 3 x 3 - BatchNorm - ReLU, and with skip connections
    from strides 8, 4 and 2.

    Args:
        bands: Number of input bands C.
        width: Channels W of the ResNet's first convolution; its stages have 4 W, 8 W and 16 W. Numbers of channels that
            are no multiples of 32 have fewer groups than 32.
        units: Units of the three stages; at least 1 each.
        embed_dim: Channels D of the tokens.
        depth: Blocks of the transformer.
        heads: Heads of attention, a divisor of D.
        decoder_channels: Channels of the decoder at strides 8, 4, 2 and 1; at stride 16 it has twice the first.
        grid: Side of the grid of positions, the side of the training tiles divided by 16: 8 for tiles of 128. For
            images of other sizes the position embedding is interpolated.
        dropout: Dropout rate of the tokens before the first block, in [0, 1). The authors' MLPs have dropout as well.
        drop_path: Rate of stochastic depth at the last block, growing linearly from 0 at the first, in [0, 1).

    Returns:
        A functional model from float (B, H, W, C) to float32 logits (B, H, W, 1), H and W multiples of 16.

    Raises:
        ValueError: If an argument is out of range.

    With the defaults it has 105,187,089 trainable parameters; with three bands and a grid of 14 it has 105,275,921,
    which are the 105.28 million that are published for R50-ViT-B/16 (each further class adds 145). Upsampling has pixel
    centres at half-integers; the authors' aligns the corners.

    Reference:
        Chen et al., "TransUNet: Transformers Make Strong Encoders for Medical Image Segmentation", 2021.

    Example:
        >>> from marsls_keras.models import build_model
        >>> small = {"width": 8, "units": [1, 1, 1], "embed_dim": 16, "depth": 1, "heads": 2}
        >>> build_model("trans_unet", bands=7, decoder_channels=[16, 8, 8, 4], **small).output_shape
        (None, None, None, 1)
    """
    _require(bands, width, units, embed_dim, depth, heads, decoder_channels, grid, dropout)
    inputs = keras.Input((None, None, bands), name="image")
    x, skips = _resnet(inputs, width, units)
    x = layers.Conv2D(embed_dim, 1, name="embed_proj")(x)  # (B, H/16, W/16, D)
    x = PositionEmbedding(grid, name="embed_positions")(x)
    if dropout:
        x = layers.Dropout(dropout, name="embed_dropout")(x)
    for i in range(depth):
        x = TransformerBlock(heads, drop_path * i / max(depth - 1, 1), epsilon=1e-6, name=f"token_block{i}")(x)
    x = layers.LayerNormalization(epsilon=1e-6, name="token_norm")(x)
    x = conv_bn_relu(x, 2 * decoder_channels[0], 3, "decoder_p4")
    for level, filters in zip((3, 2, 1, 0), decoder_channels, strict=True):
        x = UpsampleBilinear(name=f"decoder_p{level}_up")(x)  # (B, H / 2^level, W / 2^level, …)
        if level in skips:
            x = layers.Concatenate(name=f"decoder_p{level}_skip")([x, skips[level]])
        for k in (1, 2):
            x = conv_bn_relu(x, filters, 3, f"decoder_p{level}_{k}")
    x = layers.Conv2D(1, 3, padding="same", dtype="float32", name="logits")(x)
    return keras.Model(inputs, x, name="trans_unet")  # (B, H, W, 1)


def _resnet(x: Any, width: int, units: Sequence[int]) -> tuple[Any, dict[int, Any]]:
    """Return the map at stride 16, and those at strides 2, 4 and 8 by level."""
    x = _conv(x, width, 7, 2, "stem_conv")
    x = layers.ReLU(name="stem_relu")(_norm(x, "stem_norm"))  # (B, H/2, W/2, W)
    skips = {1: x}
    x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for stage, number in enumerate(units):
        for unit in range(number):
            stride = 2 if stage and not unit else 1
            x = _bottleneck(x, width * 2**stage, stride, f"stage{stage}_unit{unit}")
        skips[2 + stage] = x  # (B, H / 2^(2 + stage), W / 2^(2 + stage), 4 W 2^stage)
    return x, {level: skip for level, skip in skips.items() if level < 4}


def _bottleneck(x: Any, filters: int, stride: int, name: str) -> Any:
    """Apply a residual unit of convolutions 1 x 1, 3 x 3 and 1 x 1 to 4 filters channels."""
    shortcut = x
    if stride > 1 or x.shape[-1] != 4 * filters:
        shortcut = _conv(x, 4 * filters, 1, stride, f"{name}_shortcut")
        # One group a channel, unlike the others, as in the authors' code.
        shortcut = layers.GroupNormalization(4 * filters, epsilon=1e-5, name=f"{name}_shortcut_norm")(shortcut)
    for i, (channels, kernel, step) in enumerate(((filters, 1, 1), (filters, 3, stride), (4 * filters, 1, 1)), 1):
        x = _norm(_conv(x, channels, kernel, step, f"{name}_conv{i}"), f"{name}_norm{i}")
        if i < 3:
            x = layers.ReLU(name=f"{name}_relu{i}")(x)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([shortcut, x]))


def _conv(x: Any, filters: int, kernel: int, stride: int, name: str) -> Any:
    """Apply a convolution with a standardised kernel, padded symmetrically as in PyTorch."""
    if kernel > 1:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    return StandardizedConv2D(filters, kernel, stride, use_bias=False, kernel_initializer="he_normal", name=name)(x)


def _norm(x: Any, name: str) -> Any:
    groups = math.gcd(_GROUPS, x.shape[-1])
    return layers.GroupNormalization(groups, epsilon=1e-6, name=name)(x)


def _require(
    bands: int,
    width: int,
    units: Sequence[int],
    embed_dim: int,
    depth: int,
    heads: int,
    decoder_channels: Sequence[int],
    grid: int,
    dropout: float,
) -> None:
    """Check that arguments are in range.

    Raises:
        ValueError: If one is not.
    """
    if min(bands, width, embed_dim, depth, heads, grid) < 1 or not 0 <= dropout < 1 or embed_dim % heads:
        raise ValueError(
            "trans_unet needs bands, width, embed_dim, depth, heads and grid of at least 1, heads that divide "
            "embed_dim, and dropout in [0, 1). "
            f"Received: bands={bands}, width={width}, embed_dim={embed_dim}, depth={depth}, "
            f"heads={heads}, grid={grid}, dropout={dropout}"
        )
    if len(units) != 3 or len(decoder_channels) != 4 or min(*units, *decoder_channels) < 1:
        raise ValueError(
            "trans_unet needs three numbers of units and four of decoder_channels, all at least 1. "
            f"Received: units={list(units)}, decoder_channels={list(decoder_channels)}"
        )
