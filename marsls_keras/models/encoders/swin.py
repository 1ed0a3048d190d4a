"""Swin Transformer (V1) as an encoder: four stages of windowed attention at strides 4, 8, 16 and 32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import layers

from marsls_keras.layers import PatchMerging, SwinBlock
from marsls_keras.models.pyramid import LEVELS


def swin(
    x: Any,
    group: str = "",
    *,
    embed_dim: int = 96,
    depths: Sequence[int] = (2, 2, 6, 2),
    heads: Sequence[int] = (3, 6, 12, 24),
    window: int = 7,
    mlp_ratio: int = 4,
    drop_path: float = 0.1,
) -> dict[str, Any]:
    """Apply a Swin Transformer to images, with random weights.

    A patch embedding (4 x 4 convolution with stride 4, and LayerNorm) is followed by four stages of blocks
    (`SwinBlock`), every other one with shifted windows. `PatchMerging` before each stage but the first halves the grid
    and doubles the channels. The final normalisation and the classifier are left out. The defaults are Swin-T, with
    27,517,818 parameters for 3 bands; S has 48,835,722 and B 86,741,176.

    As in timm with `dynamic_img_size`, grids of other sizes than in pretraining are padded to whole windows, and the
    last stage has no shift, since one window covers its grid in pretraining: 7 x 7 tokens of 224 x 224 pixels, or 12 x
    12 of 384 x 384. On tiles of 128 x 128 its grid has 4 x 4 tokens.

    Args:
        x: Symbolic images (B, H, W, bands), H and W multiples of 4.
        group: Part of the names of the layers, to make them unique with several encoders in a network.
        embed_dim: Channels C of the first stage; stage i has C * 2**i.
        depths: Blocks of the four stages.
        heads: Attention heads of the four stages; each must divide the channels of its stage.
        window: Side of the windows in tokens.
        mlp_ratio: Ratio of the hidden width of the MLPs to the channels of the stage.
        drop_path: Rate of stochastic depth at the last block, growing linearly from 0 at the first.

    Returns:
        {"P2": (B, H/4, W/4, C), "P3": (B, H/8, W/8, 2C), "P4": (B, H/16, W/16, 4C), "P5": (B, H/32, W/32, 8C)}; sizes
        are rounded up.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import keras
        >>> maps = swin(keras.Input((None, None, 4)), embed_dim=8, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2))
        >>> {level: x.shape[-1] for level, x in maps.items()}
        {'P2': 8, 'P3': 16, 'P4': 32, 'P5': 64}

    Reference:
        Liu et al., "Swin Transformer", ICCV 2021; structure and names of weights as in timm.
    """
    stages = len(LEVELS)
    if len(depths) != stages or len(heads) != stages or min(*depths, *heads, embed_dim) < 1:
        raise ValueError(
            f"Swin needs depths and heads of {stages} stages and embed_dim, all at least 1. "
            f"Received: depths={list(depths)}, heads={list(heads)}, embed_dim={embed_dim}"
        )
    suffix = f"_{group}" if group else ""
    x = layers.Conv2D(embed_dim, 4, 4, padding="same", name=f"swin_embed{suffix}_proj")(x)  # (B, H/4, W/4, C)
    x = layers.LayerNormalization(epsilon=1e-5, name=f"swin_embed{suffix}_norm")(x)
    maps, done = {}, 0
    for i, (level, depth) in enumerate(zip(LEVELS, depths, strict=True)):
        name = f"swin_stage{i}{suffix}"
        if i:
            x = PatchMerging(embed_dim * 2**i, name=f"{name}_merge")(x)  # (B, H/2^(i+2), W/2^(i+2), C 2^i)
        for j in range(depth):
            x = SwinBlock(
                heads[i],
                window,
                shift=window // 2 * (j % 2) * (i < stages - 1),
                mlp_ratio=mlp_ratio,
                drop_path=drop_path * done / max(sum(depths) - 1, 1),
                name=f"{name}_block{j}",
            )(x)
            done += 1
        maps[level] = x
    return maps
