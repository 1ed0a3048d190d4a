"""The configuration as a whole: all sections, and the weights of the loss terms."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field, field_validator, model_validator

from marsls_keras.config.augmentation import Augmentation
from marsls_keras.config.data import Data
from marsls_keras.config.inference import Inference
from marsls_keras.config.model import Model
from marsls_keras.config.section import Section
from marsls_keras.config.training import Training
from marsls_keras.plugins import with_plugins


class Config(Section):
    """Configure a run: one section for each part, with a default for every key.

    Example:
        >>> config = Config.model_validate({"training": {"epochs": 30}})
        >>> config.training.epochs, config.model.name
        (30, 'unet')
    """

    model: Model = Field(Model(), description="The network, its options, and pretrained weights.")
    data: Data = Field(
        Data(),
        description="Tiles and bands, cross-validation folds, normalisation and sampling.",
    )
    augmentation: Augmentation = Field(
        Augmentation(),
        description="Random transformations of training tiles, each with its probability per tile; 0 turns one off. "
        "`preset` stands for a set of values, which other keys can override.",
    )
    loss: dict[str, float | dict[str, Any]] = Field(
        {"bce": 0.5, "dice": 0.5},
        description="The loss: a weighted sum of terms by name. A term is `name: weight`, or a section with `weight` "
        "(1 if left out) and the term's parameters, such as `focal: {weight: 0.5, gamma: 2}`. "
        "marsls_keras/losses/README.md lists the terms. The default is L3 of DualSwinFusionSeg (Table 6).",
    )
    training: Training = Field(
        Training(),
        description="Optimiser, learning-rate schedule, weight averaging, precision and random seed.",
    )
    inference: Inference = Field(Inference(), description="Tiles per prediction step, and test-time augmentation.")

    plugins: tuple[str, ...] = Field(
        (),
        description="Python files (`mine.py`), modules or entry points of `marsls.plugins` that are imported before "
        "names are looked up; they register networks, encoders, decoders and datasets. Modules that are named "
        "elsewhere, as in `model.name: mine:build`, are added by themselves.",
    )

    @model_validator(mode="before")
    @classmethod
    def _load_plugins(cls, values: Any) -> Any:
        """Import plug-ins first, since the other sections may hold names that they register."""
        return with_plugins(values) if isinstance(values, dict) else values

    @field_validator("loss")
    @classmethod
    def _weights(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Check that the weights are finite and not negative, and that one is positive."""
        weights = [term.get("weight", 1.0) if isinstance(term, dict) else term for term in value.values()]
        if not all(isinstance(w, int | float) and math.isfinite(w) and w >= 0 for w in weights) or sum(weights) <= 0:
            raise ValueError("loss needs weights of 0 or more that do not sum to 0, such as {bce: 0.5, dice: 0.5}")
        return value
