"""The configuration: pydantic models of all sections, and their YAML files; unknown keys are errors."""

from marsls_keras.config.augmentation import PRESETS, Augmentation
from marsls_keras.config.config_file import read_config, write_config
from marsls_keras.config.data import Data, Normalization
from marsls_keras.config.inference import Inference
from marsls_keras.config.keys import changed_keys, set_key
from marsls_keras.config.model import Model
from marsls_keras.config.recipe_files import describe_recipes, load_config, load_recipe, recipe_folder, recipes
from marsls_keras.config.schema import Config
from marsls_keras.config.search import Distribution, Range, Recipe
from marsls_keras.config.training import Constant, Cosine, Exponential, Schedule, Step, Training
from marsls_keras.config.validate import parse_config

__all__ = [
    "PRESETS",
    "Augmentation",
    "Config",
    "Constant",
    "Cosine",
    "Data",
    "Distribution",
    "Exponential",
    "Inference",
    "Model",
    "Normalization",
    "Range",
    "Recipe",
    "Schedule",
    "Step",
    "Training",
    "changed_keys",
    "describe_recipes",
    "load_config",
    "load_recipe",
    "parse_config",
    "read_config",
    "recipe_folder",
    "recipes",
    "set_key",
    "write_config",
]
