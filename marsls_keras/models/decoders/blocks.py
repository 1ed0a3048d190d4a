"""Building blocks shared by several decoders."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from marsls_keras.layers import BatchNormalization, ResizeLike


def conv_bn_relu(
    x: Any, filters: int, kernel: int, name: str, dilation: int = 1, use_bias: bool = False, separable: bool = False
) -> Any:
    """Apply Conv - BatchNorm - ReLU with "same" padding.

    Args:
        x: Symbolic map (B, h, w, any).
        filters: Number of filters.
        kernel: Side of the kernel in pixels.
        name: Prefix of the names of the layers.
        dilation: Dilation rate.
        use_bias: Whether the convolution has a bias, which the normalisation takes away again.
        separable: Whether the convolution is a depthwise one followed by a 1 x 1 one.

    Returns:
        (B, h, w, filters).

    Example:
        >>> conv_bn_relu(keras.Input((8, 8, 3)), 16, 3, "stem").shape
        (None, 8, 8, 16)
    """
    initial = {"kernel_initializer": "he_normal"}
    if separable:  # each channel of the depthwise kernel has kernel x kernel inputs
        spread = keras.initializers.RandomNormal(stddev=1 / kernel)
        initial = {"depthwise_initializer": spread, "pointwise_initializer": "he_normal"}
    convolution = layers.SeparableConv2D if separable else layers.Conv2D
    x = convolution(
        filters,
        kernel,
        padding="same",
        dilation_rate=dilation,
        use_bias=use_bias,
        name=f"{name}_conv",
        **initial,
    )(x)
    x = BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def resize_like(x: Any, reference: Any, name: str, align_corners: bool = False) -> Any:
    """Resize a map bilinearly to the height and width of a reference (`ResizeLike`).

    Example:
        >>> resize_like(keras.Input((4, 4, 16)), keras.Input((8, 8, 3)), "up").shape
        (None, 8, 8, 16)
    """
    return ResizeLike(align_corners, name=name)(x, reference)


def top_down(maps: list[Any], channels: int, name: str) -> list[Any]:
    """Apply the top-down path of a feature pyramid: 1 x 1 laterals, each plus the upsampled coarser map.

    Args:
        maps: n symbolic maps, the finest first.
        channels: Channels C of every map of the result.
        name: Prefix of the names of the layers.

    Returns:
        n maps of the same sizes, with C channels.

    Example:
        >>> maps = top_down([keras.Input((8, 8, 16)), keras.Input((4, 4, 32))], 24, "fpn")
        >>> [x.shape for x in maps]
        [(None, 8, 8, 24), (None, 4, 4, 24)]
    """
    out = [layers.Conv2D(channels, 1, name=f"{name}_lateral{i}")(x) for i, x in enumerate(maps)]
    for i in reversed(range(len(maps) - 1)):
        up = resize_like(out[i + 1], out[i], f"{name}_up{i}")
        out[i] = layers.Add(name=f"{name}_add{i}")([out[i], up])
    return out


def to_finest(maps: list[Any], name: str) -> list[Any]:
    """Resize all maps bilinearly to the first, the finest.

    Example:
        >>> maps = to_finest([keras.Input((8, 8, 16)), keras.Input((4, 4, 32))], "mlp")
        >>> [x.shape for x in maps]
        [(None, 8, 8, 16), (None, 8, 8, 32)]
    """
    return [maps[0], *(resize_like(x, maps[0], f"{name}_to_finest{i}") for i, x in enumerate(maps[1:], 1))]
