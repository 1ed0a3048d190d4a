"""Swin-Unet: a U-Net whose blocks are windowed attention on both paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from marsls_keras.layers import PatchExpanding, PatchMerging, SwinBlock

_PATCH = 4
_STAGES = 4


def swin_unet(
    bands: int = 7,
    *,
    embed_dim: int = 96,
    depths: Sequence[int] = (2, 2, 2, 2),
    heads: Sequence[int] = (3, 6, 12, 24),
    window: int = 8,
    mlp_ratio: int = 4,
    drop_path: float = 0.2,
    tile_size: int = 128,
) -> keras.Model:
    """Build Swin-Unet: Swin Transformer blocks on the way down and, mirrored, on the way up.

    Patches of 4 x 4 pixels are tokens. Four stages of `SwinBlock` follow, with `PatchMerging` between them. On the way
    up `PatchExpanding` doubles the grid; the tokens that entered the stage of that size are concatenated, a linear
    layer halves the channels, and blocks follow. The last expansion is by 4, to single pixels.

    Args:
        bands: Number of input bands C.
        embed_dim: Channels E of the first stage; stage i has E * 2**i.
        depths: Blocks of the four stages, on either path.
        heads: Attention heads of the four stages; each must divide the channels of its stage.
        window: Side of the windows in tokens. Grids of tiles of 128 pixels have 32, 16, 8 and 4 tokens a side, so that
            8 needs no padding; the authors have 7 for images of 224.
        mlp_ratio: Ratio of the hidden width of the MLPs to the channels of the stage.
        drop_path: Rate of stochastic depth at the last block of the way down, growing linearly from 0 at the first; the
            way up has the rates of the same stages.
        tile_size: Side in pixels of the tiles that windows are clamped to: a stage whose grid is no larger than a
            window has one window of that size, without a shift. Other sizes work, padded to whole windows. Must be
            divisible by 32.

    Returns:
        A functional model from float (B, H, W, C) to float32 logits (B, H, W, 1), H and W multiples of 32.

    Raises:
        ValueError: If an argument is out of range.

    With the defaults it has 27,173,220 trainable parameters; with three bands, windows of 7 and tiles of 224 it has
    27,168,132, which are the 27.17 million that are published (each further class adds 96).

    Reference:
        Cao et al., "Swin-Unet: Unet-like Pure Transformer for Medical Image Segmentation", 2021; sizes as in the
        authors' code.

    Example:
        >>> from marsls_keras.models import build_model
        >>> build_model("swin_unet", bands=7, embed_dim=8, depths=[1, 1, 1, 1], heads=[1, 1, 2, 2]).output_shape
        (None, None, None, 1)
    """
    _require(bands, embed_dim, depths, heads, window, tile_size)
    rates = [drop_path * i / max(sum(depths) - 1, 1) for i in range(sum(depths))]

    def stage(x: Any, i: int, name: str) -> Any:
        side = tile_size // _PATCH // 2**i
        for j in range(depths[i]):
            shift = window // 2 * (j % 2) if side > window else 0
            x = SwinBlock(
                heads[i],
                min(window, side),
                shift,
                mlp_ratio,
                rates[sum(depths[:i]) + j],
                name=f"{name}_block{j}",
            )(x)
        return x  # (B, H / 2^(i + 2), W / 2^(i + 2), E 2^i)

    inputs = keras.Input((None, None, bands), name="image")
    # Names of the encoder's layers are those of `encoders.swin`, which the reader of its checkpoints knows.
    x = layers.Conv2D(embed_dim, _PATCH, _PATCH, name="swin_embed_proj")(inputs)
    x = layers.LayerNormalization(epsilon=1e-5, name="swin_embed_norm")(x)
    entered = []
    for i in range(_STAGES):
        if i:
            x = PatchMerging(embed_dim * 2**i, name=f"swin_stage{i}_merge")(x)
        entered.append(x)
        x = stage(x, i, f"swin_stage{i}")
    x = layers.LayerNormalization(epsilon=1e-5, name="bottom_norm")(x)
    for i in reversed(range(_STAGES - 1)):
        channels = embed_dim * 2**i
        x = PatchExpanding(2, channels, name=f"decode{i}_expand")(x)
        x = layers.Concatenate(name=f"decode{i}_skip")([x, entered[i]])
        x = layers.Dense(channels, name=f"decode{i}_join")(x)
        x = stage(x, i, f"decode{i}")
    x = layers.LayerNormalization(epsilon=1e-5, name="decode_norm")(x)
    x = PatchExpanding(_PATCH, embed_dim, name="final_expand")(x)  # (B, H, W, E)
    x = layers.Conv2D(1, 1, use_bias=False, dtype="float32", name="logits")(x)
    return keras.Model(inputs, x, name="swin_unet")  # (B, H, W, 1)


def _require(
    bands: int, embed_dim: int, depths: Sequence[int], heads: Sequence[int], window: int, tile_size: int
) -> None:
    """Check that arguments are in range.

    Raises:
        ValueError: If one is not.
    """
    if len(depths) != _STAGES or len(heads) != _STAGES or min(bands, embed_dim, window, *depths, *heads) < 1:
        raise ValueError(
            f"swin_unet needs depths and heads of {_STAGES} stages, bands, embed_dim and window, all at least 1. "
            f"Received: depths={list(depths)}, heads={list(heads)}, bands={bands}, embed_dim={embed_dim}, "
            f"window={window}"
        )
    stride = _PATCH * 2 ** (_STAGES - 1)
    if tile_size < 1 or tile_size % stride:
        raise ValueError(f"tile_size must be divisible by {stride}. Received: {tile_size}")
