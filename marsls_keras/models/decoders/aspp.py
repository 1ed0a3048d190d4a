"""Atrous spatial pyramid pooling: convolutions of several dilation rates and the mean over the image, in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import layers

from marsls_keras.layers import AdaptivePooling
from marsls_keras.models.decoders.blocks import conv_bn_relu, resize_like


def aspp(x: Any, channels: int, rates: Sequence[int], name: str, separable: bool = False, dropout: float = 0.0) -> Any:
    """Apply atrous spatial pyramid pooling.

    A 1 x 1 convolution, 3 x 3 convolutions at several dilation rates, and the mean over the image each give C channels.
    A 1 x 1 convolution maps all of them to C. Each is a Conv - BatchNorm - ReLU.

    Args:
        x: Symbolic map (B, h, w, any).
        channels: Channels C.
        rates: Dilation rates, different and at least 2. Where a rate is not below h and w, only the middle of its
            kernel meets the map.
        name: Prefix of the names of the layers.
        separable: Whether the dilated convolutions are depthwise separable.
        dropout: Dropout rate at the end, in [0, 1).

    Returns:
        (B, h, w, C).

    Raises:
        ValueError: If a rate is below 2 or not unique.

    Reference:
        Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017, section 3.3.

    Example:
        >>> aspp(keras.Input((16, 16, 32)), 8, (3, 6, 9), "aspp").shape
        (None, 16, 16, 8)
    """
    if any(type(rate) is not int or rate < 2 for rate in rates) or len(set(rates)) < len(rates):
        raise ValueError(f"rates must be different whole numbers of at least 2. Received: {list(rates)}")
    branches = [conv_bn_relu(x, channels, 1, f"{name}_aspp1")]
    branches += [conv_bn_relu(x, channels, 3, f"{name}_aspp{rate}", rate, separable=separable) for rate in rates]
    mean = conv_bn_relu(AdaptivePooling(1, name=f"{name}_pool")(x), channels, 1, f"{name}_mean")  # (B, 1, 1, C)
    branches.append(resize_like(mean, x, f"{name}_mean_up"))
    together = layers.Concatenate(name=f"{name}_aspp")(branches)  # (B, h, w, (2 + number of rates) C)
    together = conv_bn_relu(together, channels, 1, f"{name}_context")
    return layers.Dropout(dropout, name=f"{name}_dropout")(together) if dropout else together
