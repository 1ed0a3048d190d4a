"""The configuration: strict, frozen models, read from and written to YAML; every key is read somewhere and unknown ones are errors."""

from marsls_keras.config.augmentation import PRESETS, Augmentation
from marsls_keras.config.files import (
    differences,
    load_config,
    load_recipe,
    parse_config,
    place,
    read_config,
    recipe_folder,
    recipes,
    without_removed,
    write_config,
)
from marsls_keras.config.schema import Config, Data, Inference, Model, Normalization, Training
from marsls_keras.config.space import Distribution, Range, Recipe

__all__ = [
    "PRESETS",
    "Augmentation",
    "Config",
    "Data",
    "Distribution",
    "Inference",
    "Model",
    "Normalization",
    "Range",
    "Recipe",
    "Training",
    "differences",
    "load_config",
    "load_recipe",
    "parse_config",
    "place",
    "read_config",
    "recipe_folder",
    "recipes",
    "without_removed",
    "write_config",
]
