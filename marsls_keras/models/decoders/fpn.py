"""Feature pyramid network decoder: top-down path, and the sum over all scales."""

from __future__ import annotations

from typing import Any

from keras import layers

from marsls_keras.models.decoders.blocks import conv_bn_relu, to_finest, top_down


def fpn(maps: list[Any], channels: int, name: str) -> Any:
    """Decode a feature pyramid with an FPN: top-down sums, a 3 x 3 convolution on each scale, and their sum.

    Args:
        maps: n maps, the finest first.
        channels: Channels C.
        name: Prefix of the names of the layers.

    Returns:
        (B, h, w, C) of the finest map's size.

    Reference:
        Lin et al., "Feature Pyramid Networks", CVPR 2017; the sum of the scales for segmentation as in Kirillov et al.,
        "Panoptic Feature Pyramid Networks", CVPR 2019, with one convolution per scale.

    Example:
        >>> pyramid = [keras.Input((32 // 2**i, 32 // 2**i, 8)) for i in range(4)]
        >>> fpn(pyramid, channels=16, name="decoder").shape
        (None, 32, 32, 16)
    """
    smooth = [conv_bn_relu(x, channels, 3, f"{name}_smooth{i}") for i, x in enumerate(top_down(maps, channels, name))]
    return layers.Add(name=f"{name}_sum")(to_finest(smooth, name))
