"""The configuration: strict, frozen models, read from and written to YAML; every key is read somewhere and unknown ones are errors."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from marsls_keras.data.bands import BANDS
from marsls_keras.errors import InputError, listing
from marsls_keras.files import write_text

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, as YAML 1.2 does; PyYAML wants a point in it and gives a text."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Model(_Section):
    """The network: its name in the registry, and the options that its builder takes."""

    name: str = "unet"
    options: dict[str, Any] = {}


class Normalization(_Section):
    """How tiles become network input.

    percentiles: per tile and band, these percentiles are brought to 0 and 1 and what lies beyond is clipped; null for none.
    zscore: then subtract mean and divide by standard deviation, per band, of the fold's training tiles.
    """

    percentiles: tuple[float, float] | None = None
    zscore: bool = True

    @field_validator("percentiles")
    @classmethod
    def _ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1] <= 100:
            raise ValueError("percentiles must be two numbers with 0 <= low < high <= 100")
        return value


class Data(_Section):
    """Which tiles and bands are used, and how tiles are divided into folds.

    release: what the tiles are; auto detects it. bands: the input bands, in the order the network gets them. pool: the labelled splits
    that are divided into folds (cv official trains on train and validates on val instead). cv: blocks of block_size x block_size grid
    cells, geographic regions, or the official split.
    """

    release: Literal["auto", "mmls_v1", "mmls_v2", "challenge"] = "auto"
    bands: tuple[str, ...] = BANDS
    pool: tuple[Literal["train", "val"], ...] = ("train", "val")
    cv: Literal["blocks", "geographic", "official"] = "blocks"
    folds: int = Field(5, ge=2)
    block_size: int = Field(2, ge=1)
    normalization: Normalization = Normalization()

    @field_validator("bands")
    @classmethod
    def _known_bands(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [band for band in value if band not in BANDS]
        if unknown or not value or len(set(value)) != len(value):
            raise ValueError(f"bands must be one or more different ones of {', '.join(BANDS)}")
        return value

    @field_validator("pool")
    @classmethod
    def _some_pool(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("pool must name one or both of train and val, once each")
        return value


class Augmentation(_Section):
    """Random changes of training tiles, each with its probability per tile; rot90 turns by 0 to 3 quarter turns, evenly drawn."""

    horizontal_flip: Probability = 0.5
    vertical_flip: Probability = 0.5
    rot90: Probability = 1.0


class Training(_Section):
    """Optimisation: AdamW, linear warm-up, cosine decay to zero, exponential moving average of the weights (ema_decay, null for none)."""

    epochs: int = Field(60, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: Positive = 1e-3
    warmup_epochs: float = Field(3, ge=0)
    weight_decay: float = Field(1e-4, ge=0)
    ema_decay: float | None = Field(0.99, gt=0, lt=1)
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    xla: Literal["auto", "on", "off"] = "auto"
    deterministic: bool = False
    seed: int = Field(0, ge=0, lt=2**31)

    @field_validator("xla", mode="before")
    @classmethod
    def _yaml_switch(cls, value: Any) -> Any:
        # YAML 1.1 reads a bare on or off as a truth value.
        return ("on" if value else "off") if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _warmup_ends(self) -> Training:
        if self.warmup_epochs >= self.epochs and self.warmup_epochs > 0:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs:g}) must be less than epochs ({self.epochs})")
        return self


class Inference(_Section):
    """Prediction: tiles per step, and the candidate sets of views that tune chooses among (see marsls_keras/inference/views.py)."""

    batch_size: int = Field(16, ge=1)
    view_sets: tuple[str, ...] = ("identity", "flips", "paper", "rotations", "d4")

    @field_validator("view_sets")
    @classmethod
    def _known_views(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from marsls_keras.inference.views import VIEW_SETS

        unknown = [name for name in value if name not in VIEW_SETS]
        if unknown or not value:
            raise ValueError(f"view_sets must be one or more of {', '.join(VIEW_SETS)}")
        return value


class Config(_Section):
    """A whole recipe."""

    model: Model = Model()
    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    loss: dict[str, float] = {"bce": 0.5, "dice": 0.5}
    training: Training = Training()
    inference: Inference = Inference()

    @field_validator("loss")
    @classmethod
    def _weights(cls, value: dict[str, float]) -> dict[str, float]:
        if any(weight < 0 for weight in value.values()) or sum(value.values()) <= 0:
            raise ValueError("loss needs weights of 0 or more that do not sum to 0, such as {bce: 0.5, dice: 0.5}")
        return value


def recipe_folder() -> Path:
    """Return the folder of the recipes: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parent
    return next(folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir())


def recipes() -> list[str]:
    """Return the names of the recipes."""
    return sorted(path.relative_to(recipe_folder()).with_suffix("").as_posix() for path in recipe_folder().rglob("*.yaml"))


def load_config(name: str, settings: list[str] | None = None) -> tuple[str, Config]:
    """Read a recipe by name, or a YAML file by path, and apply settings.

    Args:
        name: Name of a recipe ("default") or path of a YAML file; keys it lacks have their defaults.
        settings: Changes of the form "section.key=value", the value in YAML.

    Returns:
        The configuration's name (of the recipe, or the file's stem) and the configuration.

    Raises:
        InputError: If there is no such recipe or file, or a key or value is wrong; the key is named.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = recipe_folder() / f"{name}.yaml"
        if name not in recipes():
            raise InputError(f"There is no configuration {name!r}. Give a YAML file or one of:{listing(recipes())}")
    values = _read_yaml(path)
    for setting in settings or []:
        _set(values, setting)
    return path.stem, parse_config(values, f"{path} with --set" if settings else str(path))


def parse_config(values: dict[str, Any], source: str) -> Config:
    """Validate a configuration; `source` names it in errors.

    Raises:
        InputError: If a key is unknown or a value is wrong.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise InputError(f"Configuration {source}:{listing([_explain(e) for e in error.errors()])}") from None


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
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise InputError(f"There is no configuration file {path}.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"Configuration {path} cannot be read: {error}") from None
    if values is not None and not isinstance(values, dict):
        raise InputError(f"Configuration {path} must hold keys and values, found {type(values).__name__}.")
    return values or {}


def _set(values: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise InputError(f"--set {setting}: expected section.key=value, such as training.epochs=30.")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise InputError(f"--set {setting}: the value is no valid YAML: {error}") from None
    for part in parts[:-1]:
        inner = values.get(part)
        values[part] = dict(inner) if isinstance(inner, dict) else {}
        values = values[part]
    values[parts[-1]] = value


def _explain(error: Any) -> str:
    """Return one pydantic error as "key: what is wrong", with the nearest known key for an unknown one."""
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{place}: {error['msg'].removeprefix('Value error, ')}. Received: {error['input']!r}"
    known = Config.model_fields
    for part in error["loc"][:-1]:
        section = known[part].annotation
        known = section.model_fields if isinstance(section, type) and issubclass(section, BaseModel) else {}
    close = difflib.get_close_matches(str(error["loc"][-1]), known, 1)
    return f"unknown key {place}" + (f", did you mean {close[0]}?" if close else f"; known here: {', '.join(known)}")
