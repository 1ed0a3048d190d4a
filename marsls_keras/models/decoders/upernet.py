"""UPerNet decoder: pyramid pooling of the coarsest map, a top-down path, and all scales fused."""

from __future__ import annotations

from typing import Any

from keras import layers

from marsls_keras.layers import AdaptivePooling
from marsls_keras.models.decoders.blocks import conv_bn_relu, resize_like, to_finest, top_down

_BINS = (1, 2, 3, 6)


def upernet(maps: list[Any], channels: int, name: str) -> Any:
    """Decode a feature pyramid with UPerNet: pyramid pooling, top-down sums, and a convolution over all scales.

    Args:
        maps: n maps, the finest first.
        channels: Channels C.
        name: Prefix of the names of the layers.

    Returns:
        (B, h, w, C) of the finest map's size.

    Reference:
        Xiao et al., "Unified Perceptual Parsing", ECCV 2018.

    Example:
        >>> pyramid = [keras.Input((32 // 2**i, 32 // 2**i, 8)) for i in range(4)]
        >>> upernet(pyramid, channels=16, name="decoder").shape
        (None, 32, 32, 16)
    """
    coarsest, context = maps[-1], [maps[-1]]
    for bins in _BINS:
        x = AdaptivePooling(bins, name=f"{name}_pool{bins}")(coarsest)  # (B, bins, bins, C_n)
        x = conv_bn_relu(x, channels, 1, f"{name}_context{bins}")
        context.append(resize_like(x, coarsest, f"{name}_context{bins}_up"))
    x = layers.Concatenate(name=f"{name}_context")(context)  # (B, h / 2^(n-1), w / 2^(n-1), C_n + 4 C)
    x = conv_bn_relu(x, channels, 3, f"{name}_bottleneck")
    scales = top_down([*maps[:-1], x], channels, name)
    smooth = [conv_bn_relu(x, channels, 3, f"{name}_smooth{i}") for i, x in enumerate(scales)]
    x = layers.Concatenate(name=f"{name}_concat")(to_finest(smooth, name))  # (B, h, w, n C)
    return conv_bn_relu(x, channels, 3, f"{name}_fuse")
