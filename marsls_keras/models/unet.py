"""U-Net, the plain encoder-decoder baseline."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from marsls_keras.layers import BatchNormalization


def _double_conv(x: Any, filters: int, name: str) -> Any:
    """Apply Conv 3 x 3 - BatchNorm - ReLU twice; the convolutions have no bias."""
    for i in (1, 2):
        x = layers.Conv2D(
            filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv{i}"
        )(x)
        x = BatchNormalization(momentum=0.9, name=f"{name}_bn{i}")(x)
        x = layers.ReLU(name=f"{name}_relu{i}")(x)
    return x


def unet(bands: int = 7, *, base_filters: int = 16, depth: int = 4, dropout: float = 0.0) -> keras.Model:
    """Build a U-Net with padded convolutions and batch normalisation.

    Args:
        bands: Number of input bands C.
        base_filters: Filters F of the first level; level i has F * 2**i.
        depth: Number of poolings. Height and width of the input must be divisible by 2**depth.
        dropout: Dropout rate before the head, in [0, 1).

    Returns:
        A functional model from float (B, H, W, C) to float32 logits (B, H, W, 1). With the defaults and seven bands it
        has 1,946,097 parameters, 1,943,153 of them trainable.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Ronneberger et al., "U-Net", MICCAI 2015, here with padded convolutions and batch normalisation, as the baseline
        of MMLSv2.

    Example:
        >>> from marsls_keras.models import build_model
        >>> build_model("unet", bands=7, base_filters=8).output_shape
        (None, None, None, 1)
    """
    if bands < 1 or base_filters < 1 or depth < 1 or not 0 <= dropout < 1:
        raise ValueError(
            "unet needs bands, base_filters and depth of at least 1 and dropout in [0, 1). "
            f"Received: bands={bands}, base_filters={base_filters}, depth={depth}, dropout={dropout}"
        )
    inputs = keras.Input((None, None, bands), name="image")
    x, skips = inputs, []
    for level in range(depth):
        x = _double_conv(x, base_filters * 2**level, f"down{level}")  # (B, H / 2^level, W / 2^level, F 2^level)
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"pool{level}")(x)
    x = _double_conv(x, base_filters * 2**depth, "bottom")  # (B, H / 2^depth, W / 2^depth, F 2^depth)
    for level in reversed(range(depth)):
        filters = base_filters * 2**level
        x = layers.Conv2DTranspose(filters, 2, strides=2, kernel_initializer="he_normal", name=f"up{level}")(x)
        x = layers.Concatenate(name=f"skip{level}")([skips[level], x])
        x = _double_conv(x, filters, f"decode{level}")  # (B, H / 2^level, W / 2^level, F 2^level)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    # The policy of this layer alone is float32, so that logits keep their precision under mixed precision.
    logits = layers.Conv2D(1, 1, dtype="float32", name="logits")(x)  # (B, H, W, 1)
    return keras.Model(inputs, logits, name="unet")
