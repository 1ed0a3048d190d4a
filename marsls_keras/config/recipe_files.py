"""Read recipes: YAML files of `configs/` by name, or other YAML files by path, with settings applied."""

from __future__ import annotations

from pathlib import Path

from marsls_keras.config.config_file import read_yaml_file
from marsls_keras.config.keys import apply_setting
from marsls_keras.config.schema import Config
from marsls_keras.config.search import Recipe
from marsls_keras.config.validate import validate
from marsls_keras.errors import InputError, listing
from marsls_keras.suggestions import did_you_mean


def recipe_folder() -> Path:
    """Return the folder of the recipes, which is inside an installed package, and beside it in a checkout.

    Example:
        >>> (recipe_folder() / "default.yaml").is_file()
        True
    """
    package = Path(__file__).parents[1]
    return next(folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir())


def recipes() -> list[str]:
    """Return the names of the recipes, sorted.

    Example:
        >>> "default" in recipes()
        True
    """
    return sorted(path.stem for path in recipe_folder().glob("*.yaml"))  # those of tables/ are no recipes


def recipe_path(name: str) -> Path:
    """Return the file of a recipe, given by name or by path.

    Raises:
        InputError: If there is no recipe of this name.

    Example:
        >>> recipe_path("default").name
        'default.yaml'
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    if name not in recipes():
        hint = did_you_mean(name, recipes()) or f" If {name} is a network, choose it with --set model.name={name}."
        raise InputError(f"There is no configuration {name!r}.{hint} Give a YAML file or one of:{listing(recipes())}")
    return recipe_folder() / f"{name}.yaml"


def describe_recipes() -> list[dict[str, str]]:
    """Return name, purpose, time and score of every recipe, from the first line of its file.

    The line reads "# Purpose. Time: of a fold. Score: mIoU and on what."

    Example:
        >>> describe_recipes()[0]["name"]
        'best'
    """
    found = []
    for name in recipes():
        line = recipe_path(name).read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        purpose, _, rest = line.partition(" Time: ")
        time, _, score = rest.partition(" Score: ")
        parts = {"purpose": purpose, "time": time, "score": score}
        found.append({"name": name, **{key: text.rstrip(".") for key, text in parts.items()}})
    return found


def load_config(name: str, settings: list[str] | None = None) -> tuple[str, Config]:
    """Read the configuration of a recipe as `load_recipe` does, without its section `search`, which is validated too.

    Example:
        >>> name, config = load_config("unet", ["training.epochs=30"])
        >>> name, config.training.epochs
        ('unet', 30)
    """
    stem, recipe = load_recipe(name, settings)
    return stem, recipe.config


def load_recipe(name: str, settings: list[str] | None = None) -> tuple[str, Recipe]:
    """Read a recipe by name, or a YAML file by path, and apply settings.

    Args:
        name: Name of a recipe ("default") or path of a YAML file; missing keys have their defaults.
        settings: Changes of the form "section.key=value", the value in YAML.

    Returns:
        The recipe's name (for a file, its stem) and the recipe.

    Raises:
        InputError: If there is no such recipe or file, or a key or value is invalid; the key is named.

    Example:
        >>> load_recipe("unet", ["search={training.seed: [0, 1]}"])[1].search
        {'training.seed': (0, 1)}
    """
    path = recipe_path(name)
    values = read_yaml_file(path)
    for setting in settings or []:
        apply_setting(values, setting)
    return path.stem, validate(Recipe, values, f"{path} with --set" if settings else str(path))
