"""ResNet as an encoder: residual stages at strides 4 to 32, or with dilation instead of the last strides."""

from __future__ import annotations

from typing import Any

from keras import layers

from marsls_keras.layers import BatchNormalization
from marsls_keras.models.pyramid import FINEST, LEVELS

RESNET = {
    "resnet18": (False, (2, 2, 2, 2)),
    "resnet34": (False, (3, 4, 6, 3)),
    "resnet50": (True, (3, 4, 6, 3)),
    "resnet101": (True, (3, 4, 23, 3)),
}
"""Whether blocks are bottlenecks, and blocks of the four stages, by name."""
_EXPANSION = 4
"""Channels of a bottleneck's last convolution over those of its others."""


def resnet(name: str, x: Any, group: str = "", *, width: int = 64, output_stride: int = 32) -> dict[str, Any]:
    """Apply a ResNet to images, with random weights and without its classifier.

    A 7 x 7 convolution with stride 2 and a 3 x 3 maximum with stride 2 are followed by four stages of residual blocks:
    two 3 x 3 convolutions (18 and 34), or a bottleneck of 1 x 1, 3 x 3 and 1 x 1 with the stride at the 3 x 3. Padding
    is symmetric, as in PyTorch. For 3 bands, with moving statistics, the four have 11,186,112, 21,301,696, 23,561,152
    and 42,605,504 parameters.

    Args:
        name: One of `RESNET`.
        x: Symbolic images (B, H, W, bands), H and W of any size.
        group: Part of the names of the layers, to make them unique with several encoders in a network.
        width: Channels of the stem; stage i has width * 2**i, and four times as many with bottlenecks.
        output_stride: Largest stride of a map: 32, 16 or 8. Stages beyond it have no stride. All their convolutions are
            dilated by what is missing instead, also those of the first block, as in segmentation_models.pytorch.

    Returns:
        {"P1": …, …, "P5": …}, Pn (B, H / s, W / s, channels), s the smaller of 2^n and output_stride; sizes are rounded
        up.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> import keras
        >>> maps = resnet("resnet18", keras.Input((64, 64, 7)), output_stride=8)
        >>> {level: x.shape[1:] for level, x in maps.items() if level in ("P1", "P5")}
        {'P1': (32, 32, 64), 'P5': (8, 8, 512)}

    Reference:
        He et al., "Deep Residual Learning", CVPR 2016, in the layout of torchvision, which timm shares; Chen et al.,
        "Rethinking Atrous Convolution", 2017, for the dilation.
    """
    if width < 1 or output_stride not in (8, 16, 32):
        raise ValueError(
            f"{name} needs a width of at least 1 and an output_stride of 8, 16 or 32. "
            f"Received: width={width}, output_stride={output_stride}"
        )
    bottleneck, depths = RESNET[name]
    suffix = f"_{group}" if group else ""
    x = _conv_bn(x, width, 7, f"resnet_stem{suffix}", 1, stride=2)
    maps = {FINEST: layers.ReLU(name=f"resnet_stem{suffix}_relu")(x)}  # (B, H/2, W/2, width)
    x = layers.ZeroPadding2D(1, name=f"resnet_stem{suffix}_pool_pad")(maps[FINEST])  # after a ReLU zero is the least
    x = layers.MaxPooling2D(3, 2, name=f"resnet_stem{suffix}_pool")(x)
    for i, (level, depth) in enumerate(zip(LEVELS, depths, strict=True)):
        dilation = max(1, 2 ** (i + 2) // output_stride)
        for j in range(depth):
            stride = 2 if i and not j and dilation == 1 else 1
            block = f"resnet_stage{i}{suffix}_block{j}"
            x = _block(x, width * 2**i, stride, dilation, bottleneck, block)
        maps[level] = x
    return maps


def _block(x: Any, filters: int, stride: int, dilation: int, bottleneck: bool, name: str) -> Any:
    """Apply a residual block; its shortcut is the identity where shapes allow, else a 1 x 1 convolution."""
    out = filters * _EXPANSION if bottleneck else filters
    shortcut = x
    if stride > 1 or x.shape[-1] != out:
        shortcut = _conv_bn(x, out, 1, f"{name}_downsample", "", stride)
    plan = ((1, filters, 1), (3, filters, stride), (1, out, 1)) if bottleneck else ((3, out, stride), (3, out, 1))
    for k, (kernel, channels, step) in enumerate(plan, 1):
        x = _conv_bn(x, channels, kernel, name, k, step, dilation)
        if k < len(plan):
            x = layers.ReLU(name=f"{name}_relu{k}")(x)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu")(x)


def _conv_bn(x: Any, filters: int, kernel: int, name: str, k: int | str, stride: int = 1, dilation: int = 1) -> Any:
    """Apply a convolution with symmetric zero padding and no bias, and batch normalisation."""
    if stride > 1 and kernel > 1:  # "same" would pad on one side only
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad{k}")(x)
    x = layers.Conv2D(
        filters,
        kernel,
        stride,
        padding="valid" if stride > 1 else "same",
        dilation_rate=dilation if kernel > 1 else 1,
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv{k}",
    )(x)
    return BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn{k}")(x)
