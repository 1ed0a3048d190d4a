"""Plain vision transformer as an encoder, with a simple feature pyramid on its last map."""

from __future__ import annotations

from typing import Any

from keras import layers

from marsls_keras.layers import PositionedTokens, TokensToMap, TransformerBlock
from marsls_keras.models.encoders.feature_pyramid import simple_feature_pyramid

_PATCH = 16

VIT = {"vit_small": (12, 384, 6), "vit_base": (12, 768, 12), "vit_large": (24, 1024, 16)}
"""Blocks, channels and heads by name."""


def vit(name: str, x: Any, group: str = "", *, grid: int = 14, drop_path: float = 0.1) -> dict[str, Any]:
    """Apply a plain vision transformer to images, with random weights.

    Patches of 16 x 16 pixels are embedded as tokens with positions (`PositionedTokens`); blocks (`TransformerBlock`)
    and LayerNorm follow. Every token attends to all others, so the cost grows with the square of the area. A simple
    feature pyramid (`simple_feature_pyramid`) makes four maps of the last one, at stride 16. It has no pretrained
    weights, and is trained with the learning rate of the decoder. Without it base has 85,798,656 parameters for 3
    bands.

    Args:
        name: One of `VIT`.
        x: Symbolic images (B, H, W, bands), H and W multiples of 32.
        group: Part of the names of the layers, to make them unique with several encoders in a network.
        grid: Side of the grid of patches in pretraining, the side of its images divided by 16; position embeddings are
            interpolated from this grid.
        drop_path: Rate of stochastic depth at the last block, growing linearly from 0 at the first.

    Returns:
        {"P2": …, …, "P5": …}, Pn (B, H / 2^n, W / 2^n, 256).

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> import keras
        >>> maps = vit("vit_small", keras.Input((None, None, 7)))
        >>> {level: x.shape[-1] for level, x in maps.items()}
        {'P2': 256, 'P3': 256, 'P4': 256, 'P5': 256}

    Reference:
        Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; Li et al., "Exploring Plain Vision Transformer
        Backbones for Object Detection", ECCV 2022; names of weights as in Hugging Face's transformers.
    """
    depth, width, heads = VIT[name]
    suffix = f"_{group}" if group else ""
    patches = layers.Conv2D(
        width, _PATCH, _PATCH, kernel_initializer="glorot_uniform", padding="same", name=f"vit_embed{suffix}_proj"
    )(x)
    x = PositionedTokens(grid, name=f"vit_embed{suffix}_tokens")(patches)  # (B, 1 + H/16 W/16, C)
    for i in range(depth):
        x = TransformerBlock(heads, drop_path * i / max(depth - 1, 1), name=f"vit_block{i}{suffix}")(x)
    x = layers.LayerNormalization(epsilon=1e-12, name=f"vit_norm{suffix}")(x)
    x = TokensToMap(name=f"vit_map{suffix}")([x, patches])  # (B, H/16, W/16, C)
    return simple_feature_pyramid(x, f"vit_pyramid{suffix}")
