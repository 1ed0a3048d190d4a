"""The networks by name; a run keeps name and options, and the network is rebuilt from them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from marsls_keras.data.bands import BANDS
from marsls_keras.errors import InputError, listing
from marsls_keras.models.weights.sources import AUTO, automatic_source


@dataclass(frozen=True)
class Entry:
    """A network in the registry.

    Attributes:
        build: Builder; first argument `bands`, then keyword options.
        stride: From the options to the number that height and width must be divisible by.
        encoder: From the options to the levels of the encoder, input first: a prefix each, which the paths of its variables begin with.
        named: Whether `bands` are names and not their number.
        groups: From the names of the bands and the options to those of each encoder, by group.
    """

    build: Callable[..., keras.Model]
    stride: Callable[..., int]
    encoder: Callable[..., list[str]]
    named: bool = False
    groups: Callable[..., dict[str, Sequence[str]]] = lambda bands, **_: {"": bands}

    @property
    def options(self) -> dict[str, Any]:
        """The builder's options and their defaults."""
        parameters = inspect.signature(self.build).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


_ENTRIES: dict[str, Entry] = {}


def register(
    name: str,
    stride: Callable[..., int],
    encoder: Callable[..., list[str]] = lambda **_: [],
    named: bool = False,
    groups: Callable[..., dict[str, Sequence[str]]] = lambda bands, **_: {"": bands},
) -> Callable[[Callable[..., keras.Model]], Callable[..., keras.Model]]:
    """Enter a builder in the registry.

    Args:
        name: Name of the network.
        stride: Function from the options to the number that height and width must be divisible by.
        encoder: Function from the options to the levels of the encoder, input first, as prefixes of the paths of their variables, such as
            names of layers. Without it the network has no levels that could learn at rates of their own.
        named: Whether the builder gets the names of the bands, because it treats them differently, and not their number.
        groups: Function from the names of the bands and the options to the names of those of each encoder, by group. Without it the network
            has one encoder of all bands.
    """

    def enter(build: Callable[..., keras.Model]) -> Callable[..., keras.Model]:
        _ENTRIES[name] = Entry(build, stride, encoder, named, groups)
        return build

    return enter


def model_names() -> list[str]:
    """Return the names in the registry."""
    return sorted(_ENTRIES)


def entry(name: str) -> Entry:
    """Return a registry entry.

    Raises:
        InputError: If there is no such network.
    """
    if name not in _ENTRIES:
        raise InputError(f"There is no model {name!r}. Known:{listing(model_names())}")
    return _ENTRIES[name]


def build_model(name: str, bands: int | Sequence[str] = BANDS, **options: Any) -> keras.Model:
    """Build a network.

    Args:
        name: Name in the registry.
        bands: Names of the C input bands, in the order of the channels; or C, for the first C of a Mars tile.
        **options: Options of that network.

    Returns:
        A model from float (B, H, W, C) to float32 logits (B, H, W, 1).

    Raises:
        InputError: If the name or an option is unknown, or a value is refused.
    """
    require_options(name, options)
    found = entry(name)
    if found.named and isinstance(bands, int):
        if not 1 <= bands <= len(BANDS):
            raise InputError(
                f"{name} needs the names of the bands, or the number of the first of {', '.join(BANDS)}. Received: bands={bands}"
            )
        bands = BANDS[:bands]
    try:
        return found.build(bands if found.named or isinstance(bands, int) else len(bands), **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"model.options: {error}") from None


def require_options(name: str, options: dict[str, Any]) -> None:
    """Refuse a name or options that the registry does not know, and values of another type than the option's default.

    Raises:
        InputError: If the name or an option is unknown, or a value has the wrong type.
    """
    known = entry(name).options
    unknown = [option for option in options if option not in known]
    if unknown:
        raise InputError(f"model.options: {name} has no option {', '.join(unknown)}. It has: {', '.join(known)}.")
    for option, value in options.items():
        default = known[option]
        allowed = {bool: (bool,), int: (int,), float: (int, float), str: (str,), dict: (dict,), tuple: (list, tuple)}.get(type(default))
        if allowed and type(value) not in allowed:
            kind, example = ("list", list(default)) if isinstance(default, tuple) else (type(default).__name__, default)
            raise InputError(f"model.options.{option}: expected {kind}, such as {example!r}. Received: {value!r}")


def require_size(name: str, options: dict[str, Any], height: int, width: int) -> None:
    """Refuse a tile size that a network cannot take.

    Raises:
        InputError: If height or width is not divisible by the network's stride, or the options are refused.
    """
    require_options(name, options)
    stride = entry(name).stride(**options)
    if height % stride or width % stride:
        raise InputError(f"{name} needs height and width divisible by {stride}; the tiles or windows are {height} x {width}.")


def encoder_levels(name: str, options: dict[str, Any]) -> list[str]:
    """Return the levels of a network's encoder, input first: a prefix each, which the paths of its variables begin with.

    Returns:
        Such as ["down0", "down1", "bottom"]; empty if the network has no encoder.

    Raises:
        InputError: If the name or an option is refused.
    """
    require_options(name, options)
    try:
        return entry(name).encoder(**options)
    except ValueError as error:
        raise InputError(f"model.options: {error}") from None


def encoder_groups(name: str, bands: Sequence[str], options: dict[str, Any]) -> dict[str, Sequence[str]]:
    """Return the names of the bands that each encoder of a network sees, by group.

    Raises:
        InputError: If the name or an option is refused.
    """
    require_options(name, options)
    return entry(name).groups(bands, **options)


def pretrained_source(name: str, options: dict[str, Any], source: str | None) -> str | None:
    """Return the checkpoint that a network's encoders begin with, with "auto" resolved: None for random weights.

    Raises:
        InputError: If the name or an option is refused.
    """
    if source != AUTO:
        return source
    require_options(name, options)
    return automatic_source({**entry(name).options, **options}.get("encoder"))


def has_detection(name: str, options: dict[str, Any]) -> bool:
    """Return whether a network says of each image if there is any landslide: it has an option `detection`, and that is on.

    Raises:
        InputError: If the name or an option is refused.
    """
    require_options(name, options)
    return bool({**entry(name).options, **options}.get("detection", False))


def describe_models(bands: int | Sequence[str] = BANDS) -> list[dict[str, Any]]:
    """Return name, parameter counts and options of every network, built with default options."""
    rows = []
    for name in model_names():
        model = build_model(name, bands)
        trainable = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
        options = ", ".join(f"{option}={default}" for option, default in entry(name).options.items())
        rows.append({"name": name, "parameters": model.count_params(), "trainable": trainable, "options": options})
    return rows
