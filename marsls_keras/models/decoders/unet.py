"""U-Net decoder: upsampling by 2 with a skip connection at every scale, up to the size of the image."""

from __future__ import annotations

from typing import Any

from keras import layers

from marsls_keras.layers import UpsampleBilinear
from marsls_keras.models.decoders.blocks import conv_bn_relu

_SHARES = {4: 0.75, 3: 0.375, 2: 0.25, 1: 0.1875, 0: 0.125}
"""Channels at stride 2^n as a share of those at stride 32."""
_INPUT = 0.09375


def unet(maps: dict[str, Any], image: Any, channels: int, name: str) -> Any:
    """Decode a feature pyramid with a U-Net, up to the size of the image.

    The coarsest map is projected to C channels by a 1 x 1 convolution. Then, from stride 16 to 1: bilinear upsampling
    by 2, concatenation with the encoder's map of that stride, and two Conv 3 x 3 - BatchNorm - ReLU with 3 C / 4, 3 C /
    8, C / 4, 3 C / 16 and C / 8 channels. At stride 1 the skip connection comes from two convolutions of the image with
    3 C / 32 channels. Strides without a map have no skip connection.

    Args:
        maps: Maps by name, P1 optional.
        image: Symbolic images (B, H, W, bands).
        channels: Channels C; 128 gives 96, 48, 32, 24 and 16.
        name: Prefix of the names of the layers.

    Returns:
        (B, H, W, C / 8).

    Reference:
        Ronneberger et al., "U-Net", MICCAI 2015, on the pyramid of an encoder as in segmentation_models.pytorch; the
        branch at full resolution is ours.

    Example:
        >>> image = keras.Input((64, 64, 7))
        >>> pyramid = {f"P{n}": keras.Input((64 // 2**n, 64 // 2**n, 8)) for n in (2, 3, 4, 5)}
        >>> unet(pyramid, image, channels=16, name="decoder").shape
        (None, 64, 64, 2)
    """
    skips = {
        0: _twice(image, max(1, round(channels * _INPUT)), f"{name}_input"),
        **{int(level[1]): x for level, x in maps.items()},
    }
    x = conv_bn_relu(maps["P5"], channels, 1, f"{name}_p5")
    for n, share in _SHARES.items():
        x = UpsampleBilinear(name=f"{name}_p{n}_up")(x)  # (B, H / 2^n, W / 2^n, …)
        if n in skips:
            x = layers.Concatenate(name=f"{name}_p{n}_skip")([x, skips[n]])
        x = _twice(x, max(1, round(channels * share)), f"{name}_p{n}")
    return x


def _twice(x: Any, filters: int, name: str) -> Any:
    for k in (1, 2):
        x = conv_bn_relu(x, filters, 3, f"{name}_{k}")
    return x
