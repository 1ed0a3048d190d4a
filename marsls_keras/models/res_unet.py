"""ResU-Net: a U-Net of residual blocks with strides instead of poolings."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from marsls_keras.layers import BatchNormalization
from marsls_keras.models.decoders.blocks import resize_like


def res_unet(bands: int = 7, *, base_filters: int = 64, depth: int = 3, dropout: float = 0.0) -> keras.Model:
    """Build ResU-Net: a U-Net of residual blocks with full pre-activation.

    A block is the sum of BatchNorm - ReLU - Conv 3 x 3 twice, and a 1 x 1 convolution as shortcut; down the encoder
    both branches have a stride of 2. The first block has no normalisation before its first convolution. Upsampling is
    bilinear with aligned corners.

    Args:
        bands: Number of input bands C.
        base_filters: Filters F of the first level; level i has F * 2**i.
        depth: How often the size is halved. Height and width of the input must be divisible by 2**depth.
        dropout: Dropout rate before the head, in [0, 1).

    Returns:
        A functional model from float (B, H, W, C) to float32 logits (B, H, W, 1). With the defaults and seven bands it
        has 8,229,953 parameters, 8,223,553 of them trainable, as build_resunet of
        github.com/nikhilroxtomar/Semantic-Segmentation-Architecture (PyTorch), whose outputs are equal for equal
        weights. The paper counts 7.8 million, that of the 3 x 3 convolutions alone. As there, convolutions have biases.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Zhang et al., "Road Extraction by Deep Residual U-Net", IEEE GRSL 2018; for landslides Qi et al., "Automatic
        Mapping of Landslides by the ResU-Net", 2020. MarsLS-Net's Table 2 has mIoU 0.6196.

    Example:
        >>> from marsls_keras.models import build_model
        >>> build_model("res_unet", bands=7, base_filters=8).output_shape
        (None, None, None, 1)
    """
    if bands < 1 or base_filters < 1 or depth < 1 or not 0 <= dropout < 1:
        raise ValueError(
            "res_unet needs bands, base_filters and depth of at least 1 and dropout in [0, 1). "
            f"Received: bands={bands}, base_filters={base_filters}, depth={depth}, dropout={dropout}"
        )
    inputs = keras.Input((None, None, bands), name="image")
    skips = [_block(inputs, base_filters, 1, "down0", activated=False)]
    for level in range(1, depth + 1):
        name = f"down{level}" if level < depth else "bottom"
        skips.append(_block(skips[-1], base_filters * 2**level, 2, name))  # (B, H / 2^level, W / 2^level, F 2^level)
    x = skips.pop()
    for level in reversed(range(depth)):
        x = resize_like(x, skips[level], f"up{level}", align_corners=True)
        x = layers.Concatenate(name=f"skip{level}")([x, skips[level]])
        x = _block(x, base_filters * 2**level, 1, f"decode{level}")  # (B, H / 2^level, W / 2^level, F 2^level)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    # Float32 under every policy, so that logits keep their precision under mixed precision.
    logits = layers.Conv2D(1, 1, dtype="float32", name="logits")(x)  # (B, H, W, 1)
    return keras.Model(inputs, logits, name="res_unet")


def _block(x: Any, filters: int, stride: int, name: str, activated: bool = True) -> Any:
    """Apply a residual block; `activated` is whether normalisation and ReLU precede its first convolution."""
    shortcut = layers.Conv2D(filters, 1, stride, kernel_initializer="he_normal", name=f"{name}_shortcut")(x)
    if activated:
        x = _norm_relu(x, f"{name}_1")
    x = _norm_relu(_convolution(x, filters, stride, f"{name}_1"), f"{name}_2")
    return layers.Add(name=f"{name}_add")([_convolution(x, filters, 1, f"{name}_2"), shortcut])


def _norm_relu(x: Any, name: str) -> Any:
    x = BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _convolution(x: Any, filters: int, stride: int, name: str) -> Any:
    """Apply a 3 x 3 convolution with symmetric zero padding."""
    if stride > 1:  # "same" would pad on one side only
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    padding = "valid" if stride > 1 else "same"
    return layers.Conv2D(filters, 3, stride, padding=padding, kernel_initializer="he_normal", name=f"{name}_conv")(x)
