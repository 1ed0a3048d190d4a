"""DeepLabV3 decoder: atrous spatial pyramid pooling of the coarsest map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from marsls_keras.models.decoders.aspp import aspp
from marsls_keras.models.decoders.blocks import conv_bn_relu


def deeplabv3(maps: list[Any], channels: int, name: str, rates: Sequence[int] = (3, 6, 9), dropout: float = 0.0) -> Any:
    """Decode a feature pyramid with DeepLabV3: atrous spatial pyramid pooling (`aspp`) and a 3 x 3 convolution.

    Args:
        maps: n maps, the finest first; only the last is used.
        channels: Channels C.
        name: Prefix of the names of the layers.
        rates: Dilation rates of the pooling. The paper's are 6, 12, 18 at stride 16 and 12, 24, 36 at stride 8; the
            default is for stride 32.
        dropout: Dropout rate after the pooling, in [0, 1).

    Returns:
        (B, h, w, C) of the coarsest map's size.

    Reference:
        Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017.

    Example:
        >>> pyramid = [keras.Input((32 // 2**i, 32 // 2**i, 8)) for i in range(4)]
        >>> deeplabv3(pyramid, channels=16, name="decoder").shape
        (None, 4, 4, 16)
    """
    return conv_bn_relu(aspp(maps[-1], channels, rates, name, dropout=dropout), channels, 3, f"{name}_refine")
