"""What several decoders are built of."""

from __future__ import annotations

from typing import Any

from keras import layers

from marsls_keras.layers import BatchNormalization, ResizeLike


def conv_bn_relu(x: Any, filters: int, kernel: int, name: str, dilation: int = 1) -> Any:
    """Apply Conv - BatchNorm - ReLU at the size of x; the convolution has no bias because the normalisation has one."""
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
    """Resize x to height and width of a reference, bilinearly."""
    return ResizeLike(name=name)(x, reference)


def top_down(maps: list[Any], channels: int, name: str) -> list[Any]:
    """Return the maps with `channels` channels each and what the coarser ones know: laterals, added up from the coarsest on."""
    out = [layers.Conv2D(channels, 1, name=f"{name}_lateral{i}")(x) for i, x in enumerate(maps)]
    for i in reversed(range(len(maps) - 1)):
        up = resize_like(out[i + 1], out[i], f"{name}_up{i}")
        out[i] = layers.Add(name=f"{name}_add{i}")([out[i], up])
    return out


def to_finest(maps: list[Any], name: str) -> list[Any]:
    """Return the maps, all resized to the first."""
    return [maps[0], *(resize_like(x, maps[0], f"{name}_to_finest{i}") for i, x in enumerate(maps[1:], 1))]
