"""CNN backbones of keras-cv as encoders; only this module imports keras-cv, which is no longer developed."""

from __future__ import annotations

from typing import Any

from marsls_keras.models.encoders.graft import graft
from marsls_keras.models.pyramid import LEVELS

_EFFICIENT_V2: dict[str, Any] = {
    "stackwise_strides": [1, 2, 2, 2, 1, 2],
    "stackwise_conv_types": ["fused"] * 3 + ["unfused"] * 3,
    "stackwise_kernel_sizes": [3] * 6,
}
CNNS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet_v2_18_narrow": (
        "ResNetV2Backbone",
        {
            "stackwise_filters": [64, 64, 128, 256],
            "stackwise_blocks": [2, 2, 2, 2],
            "stackwise_strides": [1, 2, 2, 2],
            "block_type": "basic_block",
        },
    ),
    "resnet_v2_18": (
        "ResNetV2Backbone",
        {
            "stackwise_filters": [64, 128, 256, 512],
            "stackwise_blocks": [2, 2, 2, 2],
            "stackwise_strides": [1, 2, 2, 2],
            "block_type": "basic_block",
        },
    ),
    "resnet_v2_50": (
        "ResNetV2Backbone",
        {"stackwise_filters": [64, 128, 256, 512], "stackwise_blocks": [3, 4, 6, 3], "stackwise_strides": [1, 2, 2, 2]},
    ),
    "efficientnet_v2_b0": (
        "EfficientNetV2Backbone",
        {
            **_EFFICIENT_V2,
            "width_coefficient": 1.0,
            "depth_coefficient": 1.0,
            "stackwise_num_repeats": [1, 2, 2, 3, 5, 8],
            "stackwise_input_filters": [32, 16, 32, 48, 96, 112],
            "stackwise_output_filters": [16, 32, 48, 96, 112, 192],
            "stackwise_expansion_ratios": [1, 4, 4, 4, 6, 6],
            "stackwise_squeeze_and_excite_ratios": [0, 0, 0, 0.25, 0.25, 0.25],
        },
    ),
}
"""keras-cv's class and its arguments by name: those of its presets, which keras-cv would download, and a narrow one."""


def cnn(name: str, x: Any, group: str = "") -> dict[str, Any]:
    """Apply a backbone of keras-cv to images, with random weights and without rescaling of pixels.

    Its batch normalisations are those of Keras, not `marsls_keras.layers.BatchNormalization`.

    Args:
        name: One of `CNNS`.
        x: Symbolic images (B, H, W, bands).
        group: Part of the names of the layers, to make them unique with several encoders in a network.

    Returns:
        {"P2": …, "P3": …, "P4": …, "P5": …}, Pn (B, H / 2^n, W / 2^n, channels). The name of a layer begins with its
        stage: stage0 has the layers up to P2, stage1 those from there to P3, and so on.

    Example:
        >>> import keras
        >>> {level: x.shape[-1] for level, x in cnn("resnet_v2_18", keras.Input((None, None, 7))).items()}
        {'P2': 64, 'P3': 128, 'P4': 256, 'P5': 512}

    Reference:
        He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016; Tan & Le, "EfficientNetV2", ICML 2021.
    """
    import keras_cv

    kind, options = CNNS[name]
    backbone = getattr(keras_cv.models, kind)(include_rescaling=False, input_shape=tuple(x.shape[1:]), **options)
    outputs = {operation.name: operation.output for operation in backbone.operations}
    taps = {level: outputs[backbone.pyramid_level_inputs[level]] for level in LEVELS}
    return graft(backbone, taps, x, f"stage{{}}_{group}_" if group else "stage{}_")
