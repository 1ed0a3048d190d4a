"""ConvNeXt and ConvNeXtV2 as encoders: four stages of wide depthwise convolutions at strides 4, 8, 16 and 32."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from marsls_keras.layers import ConvNeXtBlock
from marsls_keras.models.pyramid import LEVELS

CONVNEXT = {
    "convnext_tiny": (False, (3, 3, 9, 3), 96),
    "convnext_small": (False, (3, 3, 27, 3), 96),
    "convnext_base": (False, (3, 3, 27, 3), 128),
    "convnext_v2_atto": (True, (2, 2, 6, 2), 40),
    "convnext_v2_femto": (True, (2, 2, 6, 2), 48),
    "convnext_v2_pico": (True, (2, 2, 6, 2), 64),
    "convnext_v2_nano": (True, (2, 2, 8, 2), 80),
    "convnext_v2_tiny": (True, (3, 3, 9, 3), 96),
    "convnext_v2_base": (True, (3, 3, 27, 3), 128),
}
"""By name: whether it is of the second version, blocks of the four stages, and channels of the first."""


def convnext(name: str, x: Any, group: str = "", *, drop_path: float = 0.1) -> dict[str, Any]:
    """Apply a ConvNeXt to images.

    A stem (convolution 4 x 4, stride 4, and LayerNorm); then stages of blocks (`ConvNeXtBlock`). Each stage but the
    first begins with LayerNorm and a convolution 2 x 2 of stride 2, which doubles the channels. No normalisation at the
    end, no classifier. Tiny has 27,818,592 parameters for 3 bands, atto of the second version 3,387,400.

    Args:
        name: One of `CONVNEXT`.
        x: Symbolic images (B, H, W, bands), H and W of any size.
        group: Distinguishes the layers' names from those of another encoder in the same network.
        drop_path: Stochastic depth at the last block; it grows evenly from 0 at the first. The authors take 0.1 (tiny)
            to 0.5 (base).

    Returns:
        {"P2": (B, H/4, W/4, C), "P3": (B, H/8, W/8, 2C), "P4": (B, H/16, W/16, 4C), "P5": (B, H/32, W/32, 8C)}; sizes
        that are no whole numbers are rounded up.

    Raises:
        ValueError: If drop_path is out of range.

    Example:
        >>> maps = convnext("convnext_v2_atto", keras.Input((None, None, 7)))
        >>> {level: x.shape[-1] for level, x in maps.items()}
        {'P2': 40, 'P3': 80, 'P4': 160, 'P5': 320}

    Reference:
        Liu et al., "A ConvNet for the 2020s", CVPR 2022; Woo et al., "ConvNeXt V2", CVPR 2023; names of weights as in
        timm.
    """
    response, depths, width = CONVNEXT[name]
    suffix = f"_{group}" if group else ""
    x = _patches(x, width, 4, f"stem{suffix}_proj")
    x = layers.LayerNormalization(epsilon=1e-6, name=f"stem{suffix}_norm")(x)  # (B, H/4, W/4, C)
    maps, done = {}, 0
    for i, (level, depth) in enumerate(zip(LEVELS, depths, strict=True)):
        stage = f"stage{i}{suffix}"
        if i:
            x = layers.LayerNormalization(epsilon=1e-6, name=f"{stage}_downsample_norm")(x)
            x = _patches(x, width * 2**i, 2, f"{stage}_downsample_proj")  # (B, H/2^(i+2), W/2^(i+2), C 2^i)
        for j in range(depth):
            x = ConvNeXtBlock(response, drop_path * done / (sum(depths) - 1), name=f"{stage}_block{j}")(x)
            done += 1
        maps[level] = x
    return maps


def _patches(x: Any, filters: int, side: int, name: str) -> Any:
    """Apply a convolution to patches side by side; a side of the image that is no multiple is padded with zeros."""
    initial = keras.initializers.TruncatedNormal(stddev=0.02)
    return layers.Conv2D(filters, side, side, padding="same", kernel_initializer=initial, name=name)(x)
