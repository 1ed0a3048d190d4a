"""Building blocks shared by several decoders."""

from __future__ import annotations

from typing import Any

from keras import layers

from marsls_keras.layers import BatchNormalization, ResizeLike


def conv_bn_relu(x: Any, filters: int, kernel: int, name: str, dilation: int = 1) -> Any:
    """Apply Conv - BatchNorm - ReLU with "same" padding; the convolution has no bias.

    Args:
        x: Symbolic map (B, h, w, any).
        filters: Number of filters.
        kernel: Side of the kernel in pixels.
        name: Prefix of the names of the layers.
        dilation: Dilation rate.

    Returns:
        (B, h, w, filters).

    Example:
        >>> conv_bn_relu(keras.Input((8, 8, 3)), 16, 3, "stem").shape
        (None, 8, 8, 16)
    """
    x = layers.Conv2D(
        filters,
        kernel,
        padding="same",
        dilation_rate=dilation,
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    x = BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def resize_like(x: Any, reference: Any, name: str) -> Any:
    """Resize a map bilinearly to the height and width of a reference.

    Example:
        >>> resize_like(keras.Input((4, 4, 16)), keras.Input((8, 8, 3)), "up").shape
        (None, 8, 8, 16)
    """
    return ResizeLike(name=name)(x, reference)


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
