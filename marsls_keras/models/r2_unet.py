"""R2U-Net: a U-Net of residual blocks whose convolutions are applied several times with the same weights."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from marsls_keras.layers import BatchNormalization
from marsls_keras.models.decoders.blocks import conv_bn_relu


def r2_unet(
    bands: int = 7, *, base_filters: int = 64, depth: int = 4, recurrences: int = 2, dropout: float = 0.0
) -> keras.Model:
    """Build R2U-Net: a U-Net of recurrent residual blocks.

    A block maps x to z = W x, a 1 x 1 convolution, and returns z + R_2(R_1(z)). R(z) is the last of y_0 = f(z) and
    y_i = f(z + y_(i-1)), where f is a Conv 3 x 3 - BatchNorm - ReLU with the same weights and moving statistics at
    every step. Upsampling repeats pixels and is followed by a 3 x 3 convolution.

    Args:
        bands: Number of input bands C.
        base_filters: Filters F of the first level; level i has F * 2**i.
        depth: Number of poolings. Height and width of the input must be divisible by 2**depth.
        recurrences: How often f is applied after the first time.
        dropout: Dropout rate before the head, in [0, 1).

    Returns:
        A functional model from float (B, H, W, C) to float32 logits (B, H, W, 1). With the defaults and seven bands it
        has 39,105,345 parameters, 39,091,649 of them trainable, as R2U_Net of
        github.com/LeeJunHyun/Image_Segmentation, whose outputs are equal for equal weights. As there, convolutions have
        biases.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Alom et al., "Recurrent Residual Convolutional Neural Network based on U-Net (R2U-Net)", 2018. MarsLS-Net's
        Table 2 has mIoU 0.6474.

    Example:
        >>> from marsls_keras.models import build_model
        >>> build_model("r2_unet", bands=7, base_filters=8).output_shape
        (None, None, None, 1)
    """
    if min(bands, base_filters, depth, recurrences) < 1 or not 0 <= dropout < 1:
        raise ValueError(
            "r2_unet needs bands, base_filters, depth and recurrences of at least 1 and dropout in [0, 1). Received: "
            f"bands={bands}, base_filters={base_filters}, depth={depth}, recurrences={recurrences}, dropout={dropout}"
        )
    inputs = keras.Input((None, None, bands), name="image")
    x, skips = inputs, []
    for level in range(depth):
        x = _block(x, base_filters * 2**level, recurrences, f"down{level}")  # (B, H / 2^level, W / 2^level, F 2^level)
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"pool{level}")(x)
    x = _block(x, base_filters * 2**depth, recurrences, "bottom")  # (B, H / 2^depth, W / 2^depth, F 2^depth)
    for level in reversed(range(depth)):
        filters = base_filters * 2**level
        x = layers.UpSampling2D(name=f"up{level}")(x)
        x = conv_bn_relu(x, filters, 3, f"up{level}", use_bias=True)
        x = layers.Concatenate(name=f"skip{level}")([skips[level], x])
        x = _block(x, filters, recurrences, f"decode{level}")  # (B, H / 2^level, W / 2^level, F 2^level)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    # Float32 under every policy, so that logits keep their precision under mixed precision.
    logits = layers.Conv2D(1, 1, dtype="float32", name="logits")(x)  # (B, H, W, 1)
    return keras.Model(inputs, logits, name="r2_unet")


def _block(x: Any, filters: int, recurrences: int, name: str) -> Any:
    """Apply a recurrent residual block."""
    first = layers.Conv2D(filters, 1, kernel_initializer="he_normal", name=f"{name}_conv")(x)
    x = first
    for k in (1, 2):
        x = _recurrent(x, filters, recurrences, f"{name}_{k}")
    return layers.Add(name=f"{name}_add")([first, x])


def _recurrent(x: Any, filters: int, recurrences: int, name: str) -> Any:
    """Apply Conv - BatchNorm - ReLU to a map, then repeatedly to the sum of the map and the last result."""
    convolution = layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal", name=f"{name}_conv")
    norm = BatchNormalization(momentum=0.9, name=f"{name}_bn")
    y = layers.ReLU(name=f"{name}_relu0")(norm(convolution(x)))
    for i in range(1, recurrences + 1):
        y = layers.Add(name=f"{name}_add{i}")([x, y])
        y = layers.ReLU(name=f"{name}_relu{i}")(norm(convolution(y)))
    return y
