"""DINOv2 and DINOv3, self-supervised vision transformers, as encoders with a simple feature pyramid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import layers

from marsls_keras.layers import (
    PositionedTokens,
    PrefixedTokens,
    RotaryBlock,
    TokensToMap,
    TransformerBlock,
)
from marsls_keras.models.encoders.feature_pyramid import simple_feature_pyramid

_PATCH = 16
_LAYER_SCALE = 1e-5


@dataclass(frozen=True)
class Dino:
    """Sizes of a DINO.

    Attributes:
        depth: Number of blocks.
        width: Number of channels.
        heads: Number of attention heads.
        grid: Side of the grid of position embeddings; None for rotary ones (DINOv3).
        registers: Number of register tokens.

    Example:
        >>> DINO["dinov3_small"].registers
        4
    """

    depth: int
    width: int
    heads: int
    grid: int | None
    registers: int


_SIZES = {"small": (12, 384, 6), "base": (12, 768, 12), "large": (24, 1024, 16)}

DINO = {
    **{f"dinov2_{size}": Dino(*sizes, grid=37, registers=0) for size, sizes in _SIZES.items()},
    **{f"dinov2_reg_{size}": Dino(*sizes, grid=37, registers=4) for size, sizes in _SIZES.items()},
    **{f"dinov3_{size}": Dino(*sizes, grid=None, registers=4) for size, sizes in _SIZES.items()},
}
"""Sizes by name."""


def dino(name: str, x: Any, group: str = "", *, drop_path: float = 0.1) -> dict[str, Any]:
    """Apply a DINOv2 or DINOv3 to images, with random weights.

    A plain vision transformer as `vit`, with LayerScale. DINOv2 has position embeddings for a grid of 37 x 37, which
    are interpolated as in transformers: with antialiasing in the networks with registers. DINOv3 rotates queries and
    keys by the position instead (`RotaryAttention`). A simple feature pyramid (`simple_feature_pyramid`) makes four
    maps of the last one; it has no pretrained weights, and is trained with the learning rate of the decoder. Without it
    dinov2_small has 22,125,312 parameters for 3 bands and dinov3_small 21,596,160.

    Patches have 16 x 16 pixels. Kernels of DINOv2, for patches of 14 x 14, are resampled when they are loaded
    (`weights.dino`), so that a patch enlarged to 16 x 16 gives the same token.

    Args:
        name: One of `DINO`.
        x: Symbolic images (B, H, W, bands), H and W multiples of 32.
        group: Part of the names of the layers, to make them unique with several encoders in a network.
        drop_path: Rate of stochastic depth at the last block, growing linearly from 0 at the first.

    Returns:
        {"P2": …, …, "P5": …}, Pn (B, H / 2^n, W / 2^n, 256).

    Raises:
        ValueError: If drop_path is out of range.

    Example:
        >>> import keras
        >>> maps = dino("dinov3_small", keras.Input((None, None, 7)))
        >>> {level: x.shape[-1] for level, x in maps.items()}
        {'P2': 256, 'P3': 256, 'P4': 256, 'P5': 256}

    Reference:
        Oquab et al., "DINOv2", TMLR 2024; Darcet et al., "Vision Transformers Need Registers", ICLR 2024; Siméoni et
        al., "DINOv3", 2025.
    """
    sizes = DINO[name]
    rotary = sizes.grid is None
    epsilon = 1e-5 if rotary else 1e-6
    suffix = f"_{group}" if group else ""
    patches = layers.Conv2D(
        sizes.width,
        _PATCH,
        _PATCH,
        kernel_initializer="glorot_uniform",
        padding="same",
        name=f"vit_embed{suffix}_proj",
    )(x)
    tokens = f"vit_embed{suffix}_tokens"
    if sizes.grid is None:
        x = PrefixedTokens(sizes.registers, name=tokens)(patches)  # (B, 1 + registers + H/16 W/16, C)
    else:
        x = PositionedTokens(sizes.grid, sizes.registers, antialias=sizes.registers > 0, name=tokens)(patches)
    for i in range(sizes.depth):
        kind = RotaryBlock if rotary else TransformerBlock
        rate = drop_path * i / max(sizes.depth - 1, 1)
        block = kind(sizes.heads, rate, epsilon, _LAYER_SCALE, name=f"vit_block{i}{suffix}")
        x = block([x, patches] if rotary else x)
    x = layers.LayerNormalization(epsilon=epsilon, name=f"vit_norm{suffix}")(x)
    x = TokensToMap(name=f"vit_map{suffix}")([x, patches])  # (B, H/16, W/16, C)
    return simple_feature_pyramid(x, f"vit_pyramid{suffix}")
