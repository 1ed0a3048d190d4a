"""DeepLabV3+ decoder: atrous spatial pyramid pooling of the coarsest map, refined by the finest map."""

from __future__ import annotations

from typing import Any

from keras import layers

from marsls_keras.models.decoders.aspp import aspp
from marsls_keras.models.decoders.blocks import conv_bn_relu, resize_like

_RATES = (3, 6, 9)
_DETAILS = 48


def deeplabv3plus(maps: list[Any], channels: int, name: str) -> Any:
    """Decode a feature pyramid with DeepLabV3+: atrous spatial pyramid pooling, then details of the finest map.

    The pooling (`aspp`) is that of the coarsest map. The paper's rates 6, 12, 18 are for stride 16 (and doubled for
    stride 8); here they are halved for stride 32.

    Args:
        maps: n maps, the finest first; only the first and the last are used.
        channels: Channels C.
        name: Prefix of the names of the layers.

    Returns:
        (B, h, w, C) of the finest map's size.

    Reference:
        Chen et al., "Encoder-Decoder with Atrous Separable Convolution", ECCV 2018; with plain convolutions instead of
        separable ones.

    Example:
        >>> pyramid = [keras.Input((32 // 2**i, 32 // 2**i, 8)) for i in range(4)]
        >>> deeplabv3plus(pyramid, channels=16, name="decoder").shape
        (None, 32, 32, 16)
    """
    finest, coarsest = maps[0], maps[-1]
    x = aspp(coarsest, channels, _RATES, name)
    details = conv_bn_relu(finest, _DETAILS, 1, f"{name}_details")
    x = layers.Concatenate(name=f"{name}_concat")([resize_like(x, finest, f"{name}_up"), details])  # (B, h, w, C + 48)
    for k in (1, 2):
        x = conv_bn_relu(x, channels, 3, f"{name}_refine{k}")
    return x
