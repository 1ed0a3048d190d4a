"""Simple feature pyramid: four maps of the last map of a plain vision transformer."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

_CHANNELS = 256
"""Channels of the maps."""


def simple_feature_pyramid(x: Any, name: str) -> dict[str, Any]:
    """Make maps at strides 4, 8, 16 and 32 of a map at stride 16.

    Transposed convolutions for strides 4 and 8, max pooling for 32, then 1 x 1 and 3 x 3 convolutions with LayerNorm on
    each. None of it has pretrained weights.

    Args:
        x: Symbolic map (B, H/16, W/16, C).
        name: Prefix of the names of the layers.

    Returns:
        {"P2": …, …, "P5": …}, Pn (B, H / 2^n, W / 2^n, 256).

    Example:
        >>> maps = simple_feature_pyramid(keras.Input((4, 6, 32)), "pyramid")
        >>> {level: x.shape[1:] for level, x in maps.items()}
        {'P2': (16, 24, 256), 'P3': (8, 12, 256), 'P4': (4, 6, 256), 'P5': (2, 3, 256)}

    Reference:
        Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", ECCV 2022.
    """
    width = x.shape[-1]
    half = layers.Conv2DTranspose(width // 2, 2, 2, name=f"{name}_P3_up")(x)
    fine = layers.Conv2DTranspose(width // 2, 2, 2, name=f"{name}_P2_up1")(x)
    fine = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_P2_up1_norm")(fine)
    fine = keras.ops.gelu(fine, approximate=False)
    fine = layers.Conv2DTranspose(width // 4, 2, 2, name=f"{name}_P2_up2")(fine)
    coarse = layers.MaxPooling2D(2, padding="same", name=f"{name}_P5_pool")(x)
    return {
        level: _lateral(y, f"{name}_{level}") for level, y in (("P2", fine), ("P3", half), ("P4", x), ("P5", coarse))
    }


def _lateral(x: Any, name: str) -> Any:
    for kernel in (1, 3):
        initial = keras.initializers.HeNormal()
        conv = layers.Conv2D(
            _CHANNELS, kernel, padding="same", use_bias=False, kernel_initializer=initial, name=f"{name}_conv{kernel}"
        )
        x = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm{kernel}")(conv(x))
    return x
