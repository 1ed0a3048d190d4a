"""MiT, SegFormer's encoder: overlapping patches and attention at strides 4, 8, 16 and 32."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from marsls_keras.layers import MixTransformerBlock
from marsls_keras.models.pyramid import LEVELS

_WIDTHS, _HEADS, _REDUCTIONS = (64, 128, 320, 512), (1, 2, 5, 8), (8, 4, 2, 1)

MIT = {
    "mit_b0": ((2, 2, 2, 2), (32, 64, 160, 256)),
    "mit_b1": ((2, 2, 2, 2), _WIDTHS),
    "mit_b2": ((3, 4, 6, 3), _WIDTHS),
    "mit_b3": ((3, 4, 18, 3), _WIDTHS),
    "mit_b4": ((3, 8, 27, 3), _WIDTHS),
    "mit_b5": ((3, 6, 40, 3), _WIDTHS),
}
"""Blocks and channels of the four stages by name."""


def mit(name: str, x: Any, group: str = "", *, drop_path: float = 0.1) -> dict[str, Any]:
    """Apply a MiT (Mix Transformer) to images, with random weights.

    Each of four stages begins with an overlapping patch embedding (convolution 7 x 7 with stride 4, later 3 x 3 with
    stride 2) and LayerNorm; blocks (`MixTransformerBlock`) and LayerNorm follow. Padding is symmetric, as in PyTorch.
    B0 has 3,319,392 parameters for 3 bands, B2 24,196,288.

    Args:
        name: One of `MIT`.
        x: Symbolic images (B, H, W, bands), H and W of any size.
        group: Part of the names of the layers, to make them unique with several encoders in a network.
        drop_path: Rate of stochastic depth at the last block, growing linearly from 0 at the first.

    Returns:
        {"P2": …, …, "P5": …}, Pn (B, H / 2^n, W / 2^n, channels), with 32, 64, 160 and 256 channels for B0, else with
        64, 128, 320 and 512; sizes are rounded up.

    Raises:
        ValueError: If drop_path is out of range.

    Example:
        >>> maps = mit("mit_b0", keras.Input((None, None, 7)))
        >>> {level: x.shape[-1] for level, x in maps.items()}
        {'P2': 32, 'P3': 64, 'P4': 160, 'P5': 256}

    Reference:
        Xie et al., "SegFormer", NeurIPS 2021; sizes and epsilons as in Hugging Face's transformers.
    """
    depths, widths = MIT[name]
    suffix = f"_{group}" if group else ""
    maps, done = {}, 0
    for i, (level, depth, width) in enumerate(zip(LEVELS, depths, widths, strict=True)):
        stage = f"stage{i}{suffix}"
        kernel, stride = (3, 2) if i else (7, 4)
        x = layers.ZeroPadding2D(kernel // 2, name=f"{stage}_embed_pad")(x)
        fan_out = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
        x = layers.Conv2D(width, kernel, stride, kernel_initializer=fan_out, name=f"{stage}_embed_proj")(
            x
        )  # (B, H/2^(i+2), W/2^(i+2), C)
        x = layers.LayerNormalization(epsilon=1e-5, name=f"{stage}_embed_norm")(x)
        for j in range(depth):
            rate = drop_path * done / (sum(depths) - 1)
            x = MixTransformerBlock(_HEADS[i], _REDUCTIONS[i], drop_path=rate, name=f"{stage}_block{j}")(x)
            done += 1
        x = layers.LayerNormalization(epsilon=1e-5, name=f"{stage}_final_norm")(x)
        maps[level] = x
    return maps
