"""Networks, encoders, decoders and pretrained weights; networks are described without importing Keras."""

from marsls_keras.models.catalogue import describe_models
from marsls_keras.models.registry import (
    build_model,
    encoder_groups,
    encoder_levels,
    has_detection,
    is_depthwise,
    model_names,
    pretrained_source,
    require_encoder,
    require_options,
    require_size,
)
from marsls_keras.models.weights import load_pretrained, load_timm_swin_v2, require_checkpoint

__all__ = [
    "build_model",
    "describe_models",
    "encoder_groups",
    "encoder_levels",
    "has_detection",
    "is_depthwise",
    "load_pretrained",
    "load_timm_swin_v2",
    "model_names",
    "pretrained_source",
    "require_checkpoint",
    "require_encoder",
    "require_options",
    "require_size",
]
