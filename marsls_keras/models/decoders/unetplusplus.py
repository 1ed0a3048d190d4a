"""UNet++ decoder: dense nested skip connections between all scales, and its nodes for deep supervision."""

from __future__ import annotations

from typing import Any

from keras import layers

from marsls_keras.models.decoders.blocks import conv_bn_relu, resize_like


def unetplusplus(maps: list[Any], channels: int, name: str) -> Any:
    """Decode a feature pyramid with UNet++: dense nested skip connections, without deep supervision.

    Args:
        maps: n maps, the finest first.
        channels: Channels C of every node.
        name: Prefix of the names of the layers.

    Returns:
        (B, h, w, C) of the finest map's size: the last of `unetplusplus_nodes`.

    Reference:
        Zhou et al., "UNet++", DLMIA 2018, in the variant of DualSwinFusionSeg (PBVS 2026, section 3.4).

    Example:
        >>> pyramid = [keras.Input((32 // 2**i, 32 // 2**i, 8)) for i in range(4)]
        >>> unetplusplus(pyramid, channels=16, name="decoder").shape
        (None, 32, 32, 16)
    """
    return unetplusplus_nodes(maps, channels, name)[-1]


def unetplusplus_nodes(maps: list[Any], channels: int, name: str) -> list[Any]:
    """Return all full-size nodes of UNet++, which deep supervision trains.

    Node x^(i,0) is a 1 x 1 projection of scale i. Node x^(i,j) is two Conv 3 x 3 - BatchNorm - ReLU on the
    concatenation of x^(i,0) … x^(i,j-1) and the upsampled x^(i+1,j-1) (eq. 3); the last x^(0,n-1) is refined by another
    one.

    Args:
        maps: n maps, the finest first.
        channels: Channels C of every node.
        name: Prefix of the names of the layers.

    Returns:
        x^(0,1) … x^(0,n-1), each (B, h, w, C) of the finest map's size.

    Reference:
        Zhou et al., "UNet++", DLMIA 2018, section 3.2.

    Example:
        >>> pyramid = [keras.Input((32 // 2**i, 32 // 2**i, 8)) for i in range(4)]
        >>> [node.shape for node in unetplusplus_nodes(pyramid, channels=16, name="decoder")]
        [(None, 32, 32, 16), (None, 32, 32, 16), (None, 32, 32, 16)]
    """
    nodes = [[conv_bn_relu(x, channels, 1, f"{name}_x{i}0")] for i, x in enumerate(maps)]
    for j in range(1, len(maps)):
        for i in range(len(maps) - j):
            node = f"{name}_x{i}{j}"
            up = resize_like(nodes[i + 1][j - 1], nodes[i][0], f"{node}_up")
            x = layers.Concatenate(name=f"{node}_concat")([*nodes[i], up])  # (B, h / 2^i, w / 2^i, (j + 1) C)
            for k in (1, 2):
                x = conv_bn_relu(x, channels, 3, f"{node}_{k}")
            nodes[i].append(x)
    return [*nodes[0][1:-1], conv_bn_relu(nodes[0][-1], channels, 3, f"{name}_refine")]
