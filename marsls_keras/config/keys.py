"""Set a dotted key of a configuration, and list the keys in which two configurations differ."""

from __future__ import annotations

from typing import Any

from marsls_keras.config.schema import Config
from marsls_keras.config.strict_yaml import load_yaml
from marsls_keras.errors import InputError

_KINDS = ("preset", "name")
"""Keys that select the kind of their section: setting one removes its other keys."""


def apply_setting(values: dict[str, Any], setting: str) -> None:
    """Apply a setting "section.key=value" to a configuration that is still a dictionary.

    Args:
        values: The configuration, changed in place.
        setting: The setting, the value in YAML.

    Raises:
        InputError: If the setting has another form, or its value is no valid YAML.

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
    """Set one key of a configuration that is still a dictionary; the sections that contain it are copied first.

    Another value of `preset` or `name`, which select the kind of a section, removes the other keys of the section.

    Args:
        values: The configuration, changed in place.
        parts: The parts of the dotted key, such as ["training", "epochs"].
        value: The new value.

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
    if parts[-1] in _KINDS and values.get(parts[-1]) != value:  # the other keys belong to the earlier kind
        values.clear()
    values[parts[-1]] = value


def changed_keys(old: Config, new: Config) -> list[str]:
    """List the keys in which two configurations differ, sorted, as "key: old → new".

    Example:
        >>> changed_keys(Config(), Config.model_validate({"training": {"epochs": 30}}))
        ['training.epochs: 60 → 30']
    """
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    return [
        f"{key}: {before.get(key, 'absent')} → {after.get(key, 'absent')}"
        for key in sorted(before | after)
        if before.get(key) != after.get(key)
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one dictionary with dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        key: leaf
        for name, inner in value.items()
        for key, leaf in _flat(inner, f"{prefix}.{name}" if prefix else name).items()
    }
