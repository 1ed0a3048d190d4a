"""The configuration: strict, frozen models, read from and written to YAML; every key is read somewhere and unknown ones are errors."""

from marsls_keras.config.augmentation import PRESETS, Augmentation
from marsls_keras.config.files import differences, load_config, parse_config, read_config, recipe_folder, recipes, write_config
from marsls_keras.config.schema import Config, Data, Inference, Model, Normalization, Training

__all__ = [
    "PRESETS",
    "Augmentation",
    "Config",
    "Data",
    "Inference",
    "Model",
    "Normalization",
    "Training",
    "differences",
    "load_config",
    "parse_config",
    "read_config",
    "recipe_folder",
    "recipes",
    "write_config",
]
