"""Recipes and configuration files: YAML in and out, single settings, and errors that name the key."""

from __future__ import annotations

import re
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from marsls_keras.config.schema import Config
from marsls_keras.config.space import Recipe
from marsls_keras.config.yaml_text import load_yaml
from marsls_keras.errors import InputError, listing
from marsls_keras.files import write_text
from marsls_keras.names import meant, nearest

_AnyConfig = TypeVar("_AnyConfig", bound=Config)

_KINDS = ("preset", "name")
"""Keys that say what kind their section is of: setting one begins the section anew."""


def recipe_folder() -> Path:
    """Return the folder of the recipes: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parents[1]
    return next(folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir())


def recipes() -> list[str]:
    """Return the names of the recipes."""
    return sorted(path.relative_to(recipe_folder()).with_suffix("").as_posix() for path in recipe_folder().rglob("*.yaml"))


def load_config(name: str, settings: list[str] | None = None) -> tuple[str, Config]:
    """Read the configuration of a recipe, as `load_recipe` does; what it says of a search is checked and left out."""
    stem, recipe = load_recipe(name, settings)
    return stem, recipe.config


def load_recipe(name: str, settings: list[str] | None = None) -> tuple[str, Recipe]:
    """Read a recipe by name, or a YAML file by path, and apply settings.

    Args:
        name: Name of a recipe ("default") or path of a YAML file; keys it lacks have their defaults.
        settings: Changes of the form "section.key=value", the value in YAML.

    Returns:
        The recipe's name (for a file, its stem) and the recipe.

    Raises:
        InputError: If there is no such recipe or file, or a key or value is wrong; the key is named.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = recipe_folder() / f"{name}.yaml"
        if name not in recipes():
            hint = meant(name, recipes()) or f" If {name} is a network, choose it with --set model.name={name}."
            raise InputError(f"There is no configuration {name!r}.{hint} Give a YAML file or one of:{listing(recipes())}")
    values = _read_yaml(path)
    for setting in settings or []:
        _set(values, setting)
    return path.stem, _parse(Recipe, values, f"{path} with --set" if settings else str(path))


def parse_config(values: dict[str, Any], source: str) -> Config:
    """Validate a configuration; `source` names it in errors.

    Raises:
        InputError: If a key is unknown or a value is wrong.
    """
    return _parse(Config, values, source)


def _parse(kind: type[_AnyConfig], values: dict[str, Any], source: str) -> _AnyConfig:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InputError(f"Configuration {source}:{listing([_explain(e, kind) for e in error.errors()])}") from None


def read_config(path: str | Path) -> Config:
    """Read a configuration file that was written by `write_config`.

    Raises:
        InputError: If the file is missing or damaged.
    """
    return parse_config(_read_yaml(Path(path)), str(path))


def write_config(path: str | Path, config: Config) -> None:
    """Write a configuration as YAML, all keys spelled out, atomically."""
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120))


def differences(old: Config, new: Config) -> list[str]:
    """Return what differs between two configurations, as "key: old → new"."""

    def flat(value: Any, prefix: str = "") -> dict[str, Any]:
        if not isinstance(value, dict):
            return {prefix: value}
        return {k: v for name, inner in value.items() for k, v in flat(inner, f"{prefix}.{name}" if prefix else name).items()}

    a, b = flat(old.model_dump(mode="json")), flat(new.model_dump(mode="json"))
    return [f"{key}: {a.get(key, 'absent')} → {b.get(key, 'absent')}" for key in sorted(a | b) if a.get(key) != b.get(key)]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"There is no configuration file {path}.") from None
    except IsADirectoryError:
        raise InputError(f"Configuration {path} is a folder, expected a YAML file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Configuration {path} cannot be read: {error}") from None
    values = load_yaml(text, f"Configuration {path} cannot be read")
    if values is not None and not isinstance(values, dict):
        raise InputError(f"Configuration {path} must hold keys and values, found {type(values).__name__}.")
    return values or {}


def _set(values: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise InputError(f"--set {setting}: expected section.key=value, such as training.epochs=30.")
    place(values, parts, load_yaml(text, f"--set {setting:.200}: the value is no valid YAML"))


def place(values: dict[str, Any], parts: list[str], value: Any) -> None:
    """Set a key, given by its parts, in a configuration that is still a dictionary; sections on the way are copied first.

    A key that says of which kind its section is begins it anew.
    """
    for part in parts[:-1]:
        inner = values.get(part)
        values[part] = dict(inner) if isinstance(inner, dict) else {}
        values = values[part]
    if parts[-1] in _KINDS and values.get(parts[-1]) != value:  # what the section had so far belonged to the kind that it was
        values.clear()
    values[parts[-1]] = value


def _explain(error: Any, kind: type[Config]) -> str:
    """Return one pydantic error as "key: what is wrong", with the nearest known key for an unknown one."""
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        message = f"{place}: {error['msg'].removeprefix('Value error, ')}"
        context = error.get("ctx") or {}
        if error["type"] == "union_tag_not_found":
            message = f"{place}: the key 'name' is missing, which says of what kind it is, such as {{name: cosine}}"
        given = context.get("tag", error["input"])
        if isinstance(given, str) and (known := re.findall("'([^']*)'", str(context.get("expected", context.get("expected_tags", ""))))):
            message = f"{message}.{meant(given, known)}"
        # A whole section is more than anyone reads, and the message names its keys.
        if len(repr(error["input"])) > 200:
            return message
        return f"{message.removesuffix('.')}{'' if message.endswith('?') else '.'} Received: {error['input']!r}"
    known = _keys(kind, error["loc"][:-1])
    close = nearest(str(error["loc"][-1]), known)
    if close is None and len(error["loc"]) == 1:  # a key of a section, without the section
        sections = {name: getattr(field.annotation, "model_fields", {}) for name, field in kind.model_fields.items()}
        close = next((f"{name}.{key}" for name, keys in sections.items() if (key := nearest(str(error["loc"][0]), keys))), None)
    return f"unknown key {place}" + (f", did you mean {close}?" if close else f"; known here: {', '.join(known)}")


def _keys(section: Any, path: tuple[str | int, ...]) -> list[str]:
    """Return the keys of the section at this path; a part of the path may be the kind of a schedule instead of a key."""
    if not path:
        return list(section.model_fields)
    field = section.model_fields[path[0]]
    kinds = {kind.model_fields["name"].default: kind for kind in typing.get_args(field.annotation) if "name" in kind.model_fields}
    return _keys(kinds[path[1]], path[2:]) if kinds else _keys(field.annotation, path[1:])
