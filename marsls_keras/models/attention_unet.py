"""Attention U-Net: a U-Net whose skip connections are weighted pixel by pixel."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from marsls_keras.layers import BatchNormalization
from marsls_keras.models.decoders.blocks import conv_bn_relu


def attention_unet(bands: int = 7, *, base_filters: int = 64, depth: int = 4, dropout: float = 0.0) -> keras.Model:
    """Build Attention U-Net: a U-Net with an attention gate at every skip connection.

    The gate multiplies each pixel of a skipped map x with a weight in (0, 1), computed from x and from the upsampled
    map g of the decoder: σ(BN(W_ψ relu(BN(W_g g) + BN(W_x x)))). All W are 1 x 1 convolutions, the first two to half as
    many channels, W_ψ to one. Upsampling repeats pixels and is followed by a 3 x 3 convolution.

    Args:
        bands: Number of input bands C.
        base_filters: Filters F of the first level, at least 2; level i has F * 2**i.
        depth: Number of poolings. Height and width of the input must be divisible by 2**depth.
        dropout: Dropout rate before the head, in [0, 1).

    Returns:
        A functional model from float (B, H, W, C) to float32 logits (B, H, W, 1). With the defaults and seven bands it
        has 34,896,501 parameters, 34,880,877 of them trainable, as AttU_Net of
        github.com/LeeJunHyun/Image_Segmentation, whose outputs are equal for equal weights. As there, convolutions have
        biases.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", 2018; here in two dimensions, with the
        gate at the size of the skipped map. MarsLS-Net's Table 2 has mIoU 0.6370.

    Example:
        >>> from marsls_keras.models import build_model
        >>> build_model("attention_unet", bands=7, base_filters=8).output_shape
        (None, None, None, 1)
    """
    if bands < 1 or base_filters < 2 or depth < 1 or not 0 <= dropout < 1:
        raise ValueError(
            "attention_unet needs bands and depth of at least 1, base_filters of at least 2 and dropout in [0, 1). "
            f"Received: bands={bands}, base_filters={base_filters}, depth={depth}, dropout={dropout}"
        )
    inputs = keras.Input((None, None, bands), name="image")
    x, skips = inputs, []
    for level in range(depth):
        x = _twice(x, base_filters * 2**level, f"down{level}")  # (B, H / 2^level, W / 2^level, F 2^level)
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"pool{level}")(x)
    x = _twice(x, base_filters * 2**depth, "bottom")  # (B, H / 2^depth, W / 2^depth, F 2^depth)
    for level in reversed(range(depth)):
        filters = base_filters * 2**level
        x = layers.UpSampling2D(name=f"up{level}")(x)
        x = conv_bn_relu(x, filters, 3, f"up{level}", use_bias=True)
        skip = _gated(skips[level], x, filters // 2, f"gate{level}")
        x = layers.Concatenate(name=f"skip{level}")([skip, x])
        x = _twice(x, filters, f"decode{level}")  # (B, H / 2^level, W / 2^level, F 2^level)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    # Float32 under every policy, so that logits keep their precision under mixed precision.
    logits = layers.Conv2D(1, 1, dtype="float32", name="logits")(x)  # (B, H, W, 1)
    return keras.Model(inputs, logits, name="attention_unet")


def _twice(x: Any, filters: int, name: str) -> Any:
    for k in (1, 2):
        x = conv_bn_relu(x, filters, 3, f"{name}_{k}", use_bias=True)
    return x


def _gated(x: Any, signal: Any, filters: int, name: str) -> Any:
    """Multiply each pixel of a map with a weight that is computed from it and a signal of the same size."""
    both = [_project(signal, filters, f"{name}_signal"), _project(x, filters, f"{name}_skip")]
    mixed = layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")(both))
    weight = layers.Activation("sigmoid", name=f"{name}_sigmoid")(_project(mixed, 1, f"{name}_weight"))  # (B, h, w, 1)
    return layers.Multiply(name=f"{name}_multiply")([x, weight])


def _project(x: Any, filters: int, name: str) -> Any:
    x = layers.Conv2D(filters, 1, name=f"{name}_conv")(x)
    return BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
