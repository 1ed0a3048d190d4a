"""Pretrained weights: read checkpoints, and load them into the encoders of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marsls_keras.errors import InputError
from marsls_keras.files import sha256
from marsls_keras.lazy_imports import keras
from marsls_keras.models.weights.applications import Applications
from marsls_keras.models.weights.convnext import ConvNeXt
from marsls_keras.models.weights.efficientnet_lite import EfficientNetLite
from marsls_keras.models.weights.family import Family, assign
from marsls_keras.models.weights.hgnet_v2 import HGNetV2
from marsls_keras.models.weights.mit import MiT
from marsls_keras.models.weights.resnet import ResNet
from marsls_keras.models.weights.sources import (
    AUTO,
    automatic_source,
    find_checkpoint,
    read_tensors,
    require_checkpoint,
)
from marsls_keras.models.weights.swin import Swin
from marsls_keras.models.weights.swin_v2 import SwinV2
from marsls_keras.models.weights.vit import ViT

FAMILIES: tuple[Family, ...] = (
    SwinV2(),
    EfficientNetLite(),
    MiT(),
    ConvNeXt(),
    ViT(),
    Swin(),
    HGNetV2(),
    ResNet(),
)
"""Families of encoders with pretrained weights, besides keras.applications."""


def load_pretrained(model: keras.Model, source: str, groups: Mapping[str, Sequence[str]] = {}) -> dict[str, Any]:  # noqa: B006
    """Load a checkpoint into all encoders of a network.

    Args:
        model: The network.
        source: As in `marsls_keras.models.weights.sources.find_checkpoint`.
        groups: Names of the bands of each encoder, by group (`models.encoder_groups`).

    Returns:
        "source", and "sha256" of the file.

    Raises:
        InputError: If the file cannot be read or is of another network, or a package is missing.
        RunError: If a download fails.

    Example:
        >>> from marsls_keras.models import build_model, load_pretrained
        >>> load_pretrained(build_model("segmenter"), "pip:efficientnet_lite0")  # doctest: +SKIP
    """
    path = find_checkpoint(source)
    for family in (*FAMILIES, *Applications.of(model)):
        if any(family.locate(variable.path)[1] for variable in model.weights):
            assign(model, family, family.read(path), path, groups)
            return {"source": source, "sha256": sha256(path)}
    known = ", ".join(family.title for family in FAMILIES)
    raise InputError(
        f"{source}: network {model.name} has no encoder that could take pretrained weights "
        f"({known}, or one of keras.applications)."
    )


def load_timm_swin_v2(model: keras.Model, path: str | Path) -> None:
    """Load a timm checkpoint into all SwinV2 encoders of a network.

    The size of tiles may differ from that in pretraining: the position bias is computed from offsets that are scaled to
    the window.

    Args:
        model: Network or encoder from `build_model` or `build_encoder`.
        path: A safetensors file.

    Raises:
        InputError: As `load_pretrained`.

    Example:
        >>> from marsls_keras.models.encoders import build_encoder
        >>> load_timm_swin_v2(build_encoder("swin_v2_tiny", 7), "model.safetensors")  # doctest: +SKIP
    """
    load_pretrained(model, str(path))


__all__ = [
    "AUTO",
    "FAMILIES",
    "Family",
    "automatic_source",
    "find_checkpoint",
    "load_pretrained",
    "load_timm_swin_v2",
    "read_tensors",
    "require_checkpoint",
]
