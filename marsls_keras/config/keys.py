"""Dotted keys: set one in a configuration, and list those in which two configurations differ."""

from __future__ import annotations

from typing import Any

from marsls_keras.config.schema import Config
from marsls_keras.config.strict_yaml import load_yaml
from marsls_keras.errors import InputError

_KINDS = ("preset", "name")
"""Keys that say of what kind their section is: setting one begins the section anew."""


def apply_setting(values: dict[str, Any], setting: str) -> None:
    """Apply a setting "section.key=value", the value in YAML, to a configuration that is still a dictionary.

    Raises:
        InputError: If it has another form, or its value is no YAML.

    Example:
        >>> values = {"training": {"epochs": 60}}
        >>> apply_setting(values, "training.learning_rate=1e-3")
        >>> values
        {'training': {'epochs': 60, 'learning_rate': 0.001}}
    """
    key, equals, text = setting.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise InputError(f"--set {setting}: expected section.key=value, such as training.epochs=30.")
    set_key(values, parts, load_yaml(text, f"--set {setting:.200}: the value is no valid YAML"))


def set_key(values: dict[str, Any], parts: list[str], value: Any) -> None:
    """Set one key in a configuration that is still a dictionary; sections on the way to it are copied first.

    A key that says of what kind its section is (`preset`, `name`) begins the section anew.

    Args:
        values: The configuration, changed in place.
        parts: The parts of the dotted key.
        value: What the key is set to.

    Example:
        >>> values = {"training": {"epochs": 60, "schedule": {"name": "step", "every": 3}}}
        >>> set_key(values, ["training", "epochs"], 30)
        >>> set_key(values, ["training", "schedule", "name"], "cosine")
        >>> values
        {'training': {'epochs': 30, 'schedule': {'name': 'cosine'}}}
    """
    for part in parts[:-1]:
        inner = values.get(part)
        values[part] = dict(inner) if isinstance(inner, dict) else {}
        values = values[part]
    if parts[-1] in _KINDS and values.get(parts[-1]) != value:  # the other keys belong to the kind that the section was
        values.clear()
    values[parts[-1]] = value


def changed_keys(old: Config, new: Config) -> list[str]:
    """List the keys in which two configurations differ, sorted, as "key: old → new".

    Example:
        >>> changed_keys(Config(), Config.model_validate({"training": {"epochs": 30}}))
        ['training.epochs: 60 → 30']
    """
    a, b = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    return [
        f"{key}: {a.get(key, 'absent')} → {b.get(key, 'absent')}" for key in sorted(a | b) if a.get(key) != b.get(key)
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        k: v for name, inner in value.items() for k, v in _flat(inner, f"{prefix}.{name}" if prefix else name).items()
    }
