"""SegFormer's MLP decoder: project every scale, resize to the finest, and mix pixel by pixel."""

from __future__ import annotations

from typing import Any

from keras import layers

from marsls_keras.models.decoders.blocks import conv_bn_relu, to_finest


def segformer_mlp(maps: list[Any], channels: int, name: str) -> Any:
    """Decode a feature pyramid with SegFormer's MLP: a linear projection of each scale, and a 1 x 1 convolution on all.

    The convolution is a Conv - BatchNorm - ReLU on all scales, resized to the finest and concatenated.

    Args:
        maps: n maps, the finest first.
        channels: Channels C.
        name: Prefix of the names of the layers.

    Returns:
        (B, h, w, C) of the finest map's size.

    Reference:
        Xie et al., "SegFormer", NeurIPS 2021, eq. 4.

    Example:
        >>> pyramid = [keras.Input((32 // 2**i, 32 // 2**i, 8)) for i in range(4)]
        >>> segformer_mlp(pyramid, channels=16, name="decoder").shape
        (None, 32, 32, 16)
    """
    projected = [layers.Conv2D(channels, 1, name=f"{name}_project{i}")(x) for i, x in enumerate(maps)]
    x = layers.Concatenate(name=f"{name}_concat")(to_finest(projected, name))  # (B, h, w, n C)
    return conv_bn_relu(x, channels, 1, f"{name}_fuse")
