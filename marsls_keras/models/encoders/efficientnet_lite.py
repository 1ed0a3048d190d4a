"""EfficientNet-Lite as an encoder: inverted bottlenecks without squeeze-and-excitation, maps at strides 2 to 32."""

from __future__ import annotations

import math
from typing import Any

from keras import layers

from marsls_keras.layers import BatchNormalization

_STEM = 32
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride, expansion and channels of each stage at width and depth 1."""
_MAPS = {0: "P1", 1: "P2", 2: "P3", 4: "P4", 6: "P5"}
"""Stages whose outputs are maps of the pyramid."""

EFFICIENTNET_LITE = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
    "efficientnet_lite3": (1.2, 1.4),
    "efficientnet_lite4": (1.4, 1.8),
}
"""Factors of width and depth by name."""


def efficientnet_lite(name: str, x: Any, group: str = "") -> dict[str, Any]:
    """Apply an EfficientNet-Lite to images, with random weights, without its last convolution and classifier.

    A 3 x 3 convolution with stride 2 and 32 filters is followed by seven stages of inverted bottlenecks: 1 x 1
    expansion, depthwise convolution, 1 x 1 projection, each with batch normalisation, the first two with ReLU6, and a
    residual connection where shapes allow. Padding is TensorFlow's "same", which pads strided convolutions at the
    bottom and right first. Lite0 has 2,998,304 parameters for 3 bands, with moving statistics.

    Args:
        name: One of `EFFICIENTNET_LITE`.
        x: Symbolic images (B, H, W, bands).
        group: Part of the names of the layers, to make them unique with several encoders in a network.

    Returns:
        {"P1": …, …, "P5": …}, Pn (B, H / 2^n, W / 2^n, channels); lite0 has 16, 24, 40, 112 and 320 channels.

    Example:
        >>> import keras
        >>> maps = efficientnet_lite("efficientnet_lite0", keras.Input((None, None, 7)))
        >>> {level: x.shape[-1] for level, x in maps.items()}
        {'P1': 16, 'P2': 24, 'P3': 40, 'P4': 112, 'P5': 320}

    Reference:
        Tan & Le, "EfficientNet", ICML 2019; the Lite variants as published in TensorFlow's TPU repository, 2020.
    """
    width, depth = EFFICIENTNET_LITE[name]
    suffix = f"_{group}" if group else ""
    x = _conv_bn(x, _STEM, 3, 2, f"stem{suffix}", relu=True)  # (B, H/2, W/2, 32)
    maps: dict[str, Any] = {}
    for i, (blocks, kernel, stride, expansion, channels) in enumerate(_STAGES):
        if 0 < i < len(_STAGES) - 1:  # Lite does not scale the stem, nor the depth of the first and last stages
            blocks = math.ceil(depth * blocks)
        for j in range(blocks):
            block = f"stage{i}{suffix}_block{j}"
            x = _bottleneck(x, kernel, 1 if j else stride, expansion, _rounded(channels * width), block)
        if i in _MAPS:
            maps[_MAPS[i]] = x
    return maps


def _bottleneck(x: Any, kernel: int, stride: int, expansion: int, channels: int, name: str) -> Any:
    """Apply an inverted bottleneck (Sandler et al., "MobileNetV2", CVPR 2018)."""
    shortcut = x
    if expansion > 1:
        x = _conv_bn(x, x.shape[-1] * expansion, 1, 1, f"{name}_expand", relu=True)
    x = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv")(x)
    x = layers.ReLU(6, name=f"{name}_depthwise_relu")(_norm(f"{name}_depthwise")(x))
    x = _conv_bn(x, channels, 1, 1, f"{name}_project", relu=False)
    return layers.Add(name=f"{name}_add")([shortcut, x]) if shortcut.shape[-1] == channels and stride == 1 else x


def _conv_bn(x: Any, filters: int, kernel: int, stride: int, name: str, relu: bool) -> Any:
    initial = "he_normal"
    x = layers.Conv2D(
        filters, kernel, stride, padding="same", use_bias=False, kernel_initializer=initial, name=f"{name}_conv"
    )(x)
    x = _norm(name)(x)
    return layers.ReLU(6, name=f"{name}_relu")(x) if relu else x


def _norm(name: str) -> BatchNormalization:
    return BatchNormalization(momentum=0.9, epsilon=1e-3, name=f"{name}_bn")


def _rounded(channels: float) -> int:
    """Round channels to the nearest multiple of 8, or up if that would reduce them by more than 10 %."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
