"""The networks, one a file; importing this package fills the registry."""

from marsls_keras.models import dual_swin as _dual_swin  # noqa: F401
from marsls_keras.models import mars_ls_net as _mars_ls_net  # noqa: F401
from marsls_keras.models import rmau_net as _rmau_net  # noqa: F401
from marsls_keras.models import segmenter as _segmenter  # noqa: F401
from marsls_keras.models import unet as _unet  # noqa: F401
from marsls_keras.models.registry import (
    build_model,
    describe_models,
    encoder_groups,
    encoder_levels,
    has_detection,
    model_names,
    pretrained_source,
    require_options,
    require_size,
)
from marsls_keras.models.weights import load_pretrained, load_timm_swin_v2

__all__ = [
    "build_model",
    "describe_models",
    "encoder_groups",
    "encoder_levels",
    "has_detection",
    "load_pretrained",
    "load_timm_swin_v2",
    "model_names",
    "pretrained_source",
    "require_options",
    "require_size",
]
