"""SegFormer's decoder: every scale projected, resized, and mixed pixel by pixel."""

from __future__ import annotations

from typing import Any

from keras import layers

from marsls_keras.models.decoders.blocks import conv_bn_relu, to_finest


def segformer_mlp(maps: list[Any], channels: int, name: str) -> Any:
    """Decode a pyramid: a linear projection of each scale, all at the finest, and one 1 x 1 Conv - BatchNorm - ReLU on them together.

    Args:
        maps: n maps, the finest first.
        channels: Channels C.
        name: What the names of the layers begin with.

    Returns:
        (B, h, w, C) of the finest map's size.

    Reference:
        Xie et al., "SegFormer", NeurIPS 2021, eq. 4.
    """
    projected = [layers.Conv2D(channels, 1, name=f"{name}_project{i}")(x) for i, x in enumerate(maps)]
    x = layers.Concatenate(name=f"{name}_concat")(to_finest(projected, name))  # (B, h, w, n C)
    return conv_bn_relu(x, channels, 1, f"{name}_fuse")
