"""ConvNeXt and ConvNeXtV2 as encoders: four stages of 7 x 7 depthwise convolutions at strides 4, 8, 16 and 32."""

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
"""By name: whether it is ConvNeXtV2, blocks of the four stages, and channels of the first stage."""


def convnext(name: str, x: Any, group: str = "", *, drop_path: float = 0.1) -> dict[str, Any]:
    """Apply a ConvNeXt or ConvNeXtV2 to images, with random weights.

    A stem (4 x 4 convolution with stride 4, and LayerNorm) is followed by four stages of blocks (`ConvNeXtBlock`). Each
    stage but the first begins with LayerNorm and a 2 x 2 convolution with stride 2, which doubles the channels. The
    final normalisation and the classifier are left out. Tiny has 27,818,592 parameters for 3 bands, V2 atto 3,387,400.

    Args:
        name: One of `CONVNEXT`.
        x: Symbolic images (B, H, W, bands), H and W of any size.
        group: Part of the names of the layers, to make them unique with several encoders in a network.
        drop_path: Rate of stochastic depth at the last block, growing linearly from 0 at the first. The authors use 0.1
            (tiny) to 0.5 (base).

    Returns:
        {"P2": (B, H/4, W/4, C), "P3": (B, H/8, W/8, 2C), "P4": (B, H/16, W/16, 4C), "P5": (B, H/32, W/32, 8C)}; sizes
        are rounded up.

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
    """Apply a convolution with stride equal to its kernel size; images are zero-padded to a multiple of it."""
    initial = keras.initializers.TruncatedNormal(stddev=0.02)
    return layers.Conv2D(filters, side, side, padding="same", kernel_initializer=initial, name=name)(x)
