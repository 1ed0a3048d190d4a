"""Validate a configuration, with errors that name each invalid key and the nearest known one."""

from __future__ import annotations

import re
import typing
from typing import Any, TypeVar

from pydantic import ValidationError

from marsls_keras.config.schema import Config
from marsls_keras.errors import InputError, listing
from marsls_keras.suggestions import did_you_mean, nearest_name

_AnyConfig = TypeVar("_AnyConfig", bound=Config)

_REMOVED = {
    "training.keep_each": "it was removed, since members of one training gained nothing (configs/RESULTS.md); "
    "leave it out",
}
"""Keys of earlier versions, which the config.yaml of an earlier run may still have, with the reason of the removal."""


def parse_config(values: dict[str, Any], source: str) -> Config:
    """Validate a configuration given as a dictionary; missing keys get their defaults.

    Args:
        values: The configuration.
        source: Its name in error messages, such as the path of its file.

    Raises:
        InputError: If a key is unknown or a value is invalid; every such key is named.

    Example:
        >>> parse_config({"training": {"epochs": 30}}, "mine.yaml").training.epochs
        30
        >>> parse_config({"training": {"epoch": 30}}, "mine.yaml")
        Traceback (most recent call last):
            ...
        marsls_keras.errors.InputError: Configuration mine.yaml:
          - unknown key training.epoch, did you mean epochs?
    """
    return validate(Config, values, source)


def validate(kind: type[_AnyConfig], values: dict[str, Any], source: str) -> _AnyConfig:
    """Validate a dictionary as a `Config` or a `Recipe`; see `parse_config`.

    Example:
        >>> validate(Config, {}, "mine.yaml") == Config()
        True
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InputError(f"Configuration {source}:{listing([_explanation(e, kind) for e in error.errors()])}") from None


def drop_removed_keys(values: dict[str, Any]) -> None:
    """Remove the keys of earlier versions from the configuration of a run, in place.

    Example:
        >>> values = {"training": {"epochs": 30, "keep_each": True}}
        >>> drop_removed_keys(values)
        >>> values
        {'training': {'epochs': 30}}
    """
    for key in _REMOVED:
        section, name = key.split(".")
        if isinstance(values.get(section), dict):
            values[section].pop(name, None)


def _explanation(error: Any, kind: type[Config]) -> str:
    """Format one pydantic error as "key: message", with the nearest known key for an unknown one."""
    dotted = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        message = f"{dotted}: {error['msg'].removeprefix('Value error, ')}"
        context = error.get("ctx") or {}
        if error["type"] == "union_tag_not_found":
            message = f"{dotted}: the key 'name' is missing, which says of what kind it is, such as {{name: cosine}}"
        given = context.get("tag", error["input"])
        if isinstance(given, str) and (
            known := re.findall("'([^']*)'", str(context.get("expected", context.get("expected_tags", ""))))
        ):
            message = f"{message}.{did_you_mean(given, known)}"
        # A whole section is too long to show, and the message names its keys.
        if len(repr(error["input"])) > 200:
            return message
        return f"{message.removesuffix('.')}{'' if message.endswith('?') else '.'} Received: {error['input']!r}"
    if dotted in _REMOVED:
        return f"unknown key {dotted}: {_REMOVED[dotted]}"
    known = _known_keys(kind, error["loc"][:-1])
    close = nearest_name(str(error["loc"][-1]), known)
    if close is None and len(error["loc"]) == 1:  # a key of a section, without the section
        sections = {name: getattr(field.annotation, "model_fields", {}) for name, field in kind.model_fields.items()}
        close = next(
            (f"{name}.{key}" for name, keys in sections.items() if (key := nearest_name(str(error["loc"][0]), keys))),
            None,
        )
    return f"unknown key {dotted}" + (f", did you mean {close}?" if close else f"; known here: {', '.join(known)}")


def _known_keys(section: Any, path: tuple[str | int, ...]) -> list[str]:
    """Return the keys of the section at a path, whose parts are keys or kinds of a section, such as "cosine"."""
    if not path:
        return list(section.model_fields)
    field = section.model_fields[path[0]]
    kinds = {
        kind.model_fields["name"].default: kind
        for kind in typing.get_args(field.annotation)
        if "name" in kind.model_fields
    }
    return _known_keys(kinds[path[1]], path[2:]) if kinds else _known_keys(field.annotation, path[1:])
