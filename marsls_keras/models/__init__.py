"""The networks, one a file; what only asks about them does not import Keras."""

from marsls_keras.models.pretrained import load_pretrained, load_timm_swin_v2, require_checkpoint
from marsls_keras.models.registry import (
    build_model,
    describe_models,
    encoder_levels,
    has_detection,
    model_names,
    require_options,
    require_size,
)

__all__ = [
    "build_model",
    "describe_models",
    "encoder_levels",
    "has_detection",
    "load_pretrained",
    "load_timm_swin_v2",
    "model_names",
    "require_checkpoint",
    "require_options",
    "require_size",
]
