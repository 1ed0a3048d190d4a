"""Read and write the configuration of a run as a YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from marsls_keras.config.keys import apply_setting
from marsls_keras.config.schema import Config
from marsls_keras.config.strict_yaml import load_yaml
from marsls_keras.config.validate import drop_removed_keys, parse_config
from marsls_keras.errors import InputError
from marsls_keras.files import write_text


def read_config(path: str | Path, settings: Sequence[str] = ()) -> Config:
    """Read the configuration of a run from a YAML file; ignore keys that only an earlier version had.

    Args:
        path: The file, such as runs/default/config.yaml.
        settings: Changes of the form "section.key=value", the value in YAML.

    Raises:
        InputError: If the file is missing or damaged, or a key, a value or a setting is invalid.

    Example:
        >>> Path("config.yaml").write_text("training: {epochs: 30}") and None
        >>> read_config("config.yaml", ["training.seed=1"]).training.epochs
        30
    """
    values = read_yaml_file(Path(path))
    drop_removed_keys(values)
    for setting in settings:
        apply_setting(values, setting)
    return parse_config(values, f"{path} with --set" if settings else str(path))


def write_config(path: str | Path, config: Config) -> None:
    """Write a configuration atomically as YAML, with every key.

    Example:
        >>> write_config("config.yaml", Config())
        >>> read_config("config.yaml") == Config()
        True
    """
    write_text(
        path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120)
    )


def read_yaml_file(path: Path) -> dict[str, Any]:
    """Read a YAML file as a dictionary; an empty file gives an empty one.

    Raises:
        InputError: If the file is missing, cannot be read, is no valid YAML (see `load_yaml`), or has no keys.

    Example:
        >>> Path("mine.yaml").write_text("training: {learning_rate: 1e-3}") and None
        >>> read_yaml_file(Path("mine.yaml"))
        {'training': {'learning_rate': 0.001}}
    """
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
