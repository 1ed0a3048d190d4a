"""PP-HGNetV2 as an encoder: convolutions whose outputs are all concatenated, at strides 2 to 32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import layers

from marsls_keras.layers import BatchNormalization, LearnableAffine
from marsls_keras.models.pyramid import FINEST, LEVELS

_KERNELS = (3, 3, 5, 5)
"""Side of the kernels of each stage. Those of 5 are depthwise, after 1 x 1 convolutions."""


@dataclass(frozen=True)
class HGNetV2:
    """Sizes of an HGNetV2.

    Attributes:
        stem: Channels within the stem and after it.
        inner: Channels of the convolutions of each stage.
        outer: Channels of the maps of each stage.
        blocks: Blocks of the third stage; the others have one.
        depth: Convolutions of each block.
        affine: Whether a learned scale and offset follow each ReLU.

    Example:
        >>> HGNET_V2["hgnetv2_b0"].outer
        (64, 256, 512, 1024)
    """

    stem: tuple[int, int]
    inner: tuple[int, int, int, int]
    outer: tuple[int, int, int, int]
    blocks: int
    depth: int
    affine: bool = True


HGNET_V2 = {
    "hgnetv2_b0": HGNetV2((16, 16), (16, 32, 64, 128), (64, 256, 512, 1024), 2, 3),
    "hgnetv2_b1": HGNetV2((24, 32), (32, 48, 96, 192), (64, 256, 512, 1024), 2, 3),
    "hgnetv2_b2": HGNetV2((24, 32), (32, 64, 128, 256), (96, 384, 768, 1536), 3, 4),
    "hgnetv2_b3": HGNetV2((24, 32), (32, 64, 128, 256), (128, 512, 1024, 2048), 3, 5),
    "hgnetv2_b4": HGNetV2((32, 48), (48, 96, 192, 384), (128, 512, 1024, 2048), 3, 6, affine=False),
}
"""Sizes by name."""


def hgnet_v2(name: str, x: Any, group: str = "") -> dict[str, Any]:
    """Apply a PP-HGNetV2 to images, with random weights, without its last convolution and classifier.

    A stem of convolutions and a pooling ends at stride 4. Each of four stages but the first begins with a depthwise
    convolution with stride 2; in its blocks, convolutions follow one another, their outputs and the block's input are
    concatenated, and two 1 x 1 convolutions aggregate them. Every convolution has batch normalisation and, but for
    depthwise and 1 x 1 convolutions in front of others, ReLU and `LearnableAffine` (not in B4). Padding is symmetric,
    as in PyTorch. B0 has 1,862,668 parameters for 3 bands, with moving statistics.

    Args:
        name: One of `HGNET_V2`.
        x: Symbolic images (B, H, W, bands), H and W of any size.
        group: Part of the names of the layers, to make them unique with several encoders in a network.

    Returns:
        {"P1": …, …, "P5": …}, Pn (B, H / 2^n, W / 2^n, channels); B0 has 16, 64, 256, 512 and 1024 channels; sizes are
        rounded up.

    Example:
        >>> import keras
        >>> maps = hgnet_v2("hgnetv2_b0", keras.Input((None, None, 7)))
        >>> {level: x.shape[-1] for level, x in maps.items()}
        {'P1': 16, 'P2': 64, 'P3': 256, 'P4': 512, 'P5': 1024}

    Reference:
        PP-HGNetV2 of PaddlePaddle (no paper; used in RT-DETR); structure and names of weights as in timm.
    """
    sizes = HGNET_V2[name]
    suffix = f"_{group}" if group else ""
    stem, affine = f"hgnet_stem{suffix}", sizes.affine
    within, after = sizes.stem
    x = _conv(x, within, 3, f"{stem}_stem1", affine, stride=2)
    maps = {FINEST: x}
    x = _padded(x, f"{stem}_pad1")
    y = _conv(x, within // 2, 2, f"{stem}_stem2a", affine)
    y = _conv(_padded(y, f"{stem}_pad2"), within, 2, f"{stem}_stem2b", affine)
    x = layers.Concatenate(name=f"{stem}_join")([layers.MaxPooling2D(2, 1, name=f"{stem}_pool")(x), y])
    x = _conv(x, within, 3, f"{stem}_stem3", affine, stride=2)
    x = _conv(x, after, 1, f"{stem}_stem4", affine)  # (B, H/4, W/4, C)
    for i, level in enumerate(LEVELS):
        stage = f"hgnet_stage{i}{suffix}"
        if i:
            x = _conv(x, x.shape[-1], 3, f"{stage}_downsample", relu=False, stride=2, depthwise=True)
        for j in range(sizes.blocks if i == 2 else 1):
            x = _block(x, sizes, i, f"{stage}_block{j}", residual=j > 0)
        maps[level] = x
    return maps


def _block(x: Any, sizes: HGNetV2, stage: int, name: str, residual: bool) -> Any:
    """Apply convolutions one after the other, and aggregate their outputs and the input."""
    inner, outer, kernel = sizes.inner[stage], sizes.outer[stage], _KERNELS[stage]
    y, outputs = x, [x]
    for k in range(sizes.depth):
        if kernel == 5:
            y = _conv(y, inner, 1, f"{name}_layer{k}_conv1", relu=False)
            y = _conv(y, inner, kernel, f"{name}_layer{k}_conv2", sizes.affine, depthwise=True)
        else:
            y = _conv(y, inner, kernel, f"{name}_layer{k}", sizes.affine)
        outputs.append(y)
    y = layers.Concatenate(name=f"{name}_join")(outputs)
    y = _conv(y, outer // 2, 1, f"{name}_aggregation0", sizes.affine)
    y = _conv(y, outer, 1, f"{name}_aggregation1", sizes.affine)
    return layers.Add(name=f"{name}_add")([y, x]) if residual else y


def _conv(
    x: Any,
    filters: int,
    kernel: int,
    name: str,
    affine: bool = False,
    *,
    relu: bool = True,
    stride: int = 1,
    depthwise: bool = False,
) -> Any:
    """Apply a convolution, batch normalisation, ReLU, and a learned scale and offset."""
    if kernel > 2:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    if depthwise:
        x = layers.DepthwiseConv2D(
            kernel, stride, use_bias=False, depthwise_initializer="he_normal", name=f"{name}_conv"
        )(x)
    else:
        x = layers.Conv2D(filters, kernel, stride, use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv")(
            x
        )
    x = BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
    if relu:
        x = layers.ReLU(name=f"{name}_relu")(x)
    return LearnableAffine(name=f"{name}_lab")(x) if affine else x


def _padded(x: Any, name: str) -> Any:
    """Append a row and a column of zeros at the bottom and right."""
    return layers.ZeroPadding2D(((0, 1), (0, 1)), name=name)(x)
