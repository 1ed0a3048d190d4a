"""The networks by name; a run keeps name and options, and the network is rebuilt from them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from marsls_keras.bands.releases import BANDS
from marsls_keras.config import Training
from marsls_keras.errors import InputError, listing
from marsls_keras.lazy import keras
from marsls_keras.models.networks import DEPTHWISE, NETWORKS, REGISTERED, Network, stored_table
from marsls_keras.models.weights.sources import AUTO, automatic_source
from marsls_keras.names import meant

_TYPES: dict[type, tuple[type, ...]] = {
    **{kind: (kind,) for kind in (bool, int, str, dict)},
    float: (int, float),
    **dict.fromkeys((list, tuple), (list, tuple)),
}
"""The types that a value of an option may have, by that of its default."""

_ENTRIES: dict[str, Network] = dict(NETWORKS)


def register(
    name: str,
    stride: Callable[..., int],
    encoder: Callable[..., list[str]] = lambda **_: [],
    named: bool = False,
    groups: Callable[..., dict[str, Sequence[str]]] = lambda bands, **_: {"": bands},
) -> Callable[[Callable[..., keras.Model]], Callable[..., keras.Model]]:
    """Enter the builder of a network that is not of this package.

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
        _ENTRIES[name] = Network(stride, encoder, named, build=build, groups=groups)
        return build

    return enter


def model_names() -> list[str]:
    """Return the names in the registry."""
    return sorted(_ENTRIES)


def entry(name: str) -> Network:
    """Return what is known of a network without building it.

    Raises:
        InputError: If there is no such network.
    """
    if name not in _ENTRIES:
        raise InputError(f"There is no model {name!r}.{meant(name, _ENTRIES)} Known:{listing(model_names())}")
    return _ENTRIES[name]


def builder(name: str) -> Callable[..., keras.Model]:
    """Return the function that builds a network; first argument `bands`, then keyword options. Keras is imported with it."""
    own = entry(name).build
    return own if own is not None else getattr(import_module(f"marsls_keras.models.{name}"), name)


def signature_options(name: str) -> dict[str, Any]:
    """Return the options of a builder and their defaults, as the stored table has them of the networks of this package."""
    parameters = inspect.signature(builder(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def known_options(name: str) -> dict[str, Any]:
    """Return the options of a network and their defaults, without importing Keras for a network of this package.

    Raises:
        InputError: If there is no such network.
    """
    return signature_options(name) if entry(name).build else stored_table()[name]["options"]


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
        return builder(name)(bands if found.named or isinstance(bands, int) else len(bands), **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"model.options: {error}") from None


def require_options(name: str, options: dict[str, Any]) -> None:
    """Refuse a name or options that the registry does not know, and values of another type than the option's default.

    Raises:
        InputError: If the name or an option is unknown, or a value has the wrong type.
    """
    choices, known = entry(name).choices, known_options(name)
    unknown = [option for option in options if option not in known]
    if unknown:
        raise InputError(f"model.options: {name} has no option {', '.join(unknown)}.{meant(unknown[0], known)} It has: {', '.join(known)}.")
    for option, value in options.items():
        default = known[option]
        allowed = _TYPES.get(type(default))
        if allowed and type(value) not in allowed:
            kind = type(default).__name__
            raise InputError(f"model.options.{option}: expected {kind}, such as {default!r}. Received: {value!r}")
        if option in choices and value not in (possible := (*choices[option], *REGISTERED.get(option, ()))):
            one_of = f"{option} must be one of {', '.join(possible)}."
            raise InputError(f"model.options: {one_of}{meant(value, possible)} Received: {value!r}")


def require_size(name: str, options: dict[str, Any], height: int, width: int) -> None:
    """Refuse a tile size that a network cannot take.

    Raises:
        InputError: If height or width is not divisible by the network's stride, or the options are refused.
    """
    require_options(name, options)
    stride = entry(name).stride(**options)
    if height % stride or width % stride:
        side = max(round(max(height, width) / stride), -(-16 // stride)) * stride  # data.resize takes 16 pixels and more
        raise InputError(
            f"{name} needs height and width divisible by {stride}; the tiles or windows are {height} x {width}. "
            f"data.resize brings tiles to another size: --set data.resize={side}"
        )


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
    return automatic_source({**known_options(name), **options}.get("encoder"))


def require_encoder(config: Training, encoder: Sequence[str]) -> None:
    """Refuse learning rates of the encoder for a network that has no encoder with levels.

    Raises:
        InputError: If so.
    """
    if encoder:
        return
    for key, asked in (("layer_decay", config.layer_decay != 1), ("encoder_learning_rate", config.encoder_learning_rate is not None)):
        if asked:
            raise InputError(
                f"training.{key} is {getattr(config, key):g}, but the network has no encoder with levels. "
                f"Set it to {'1' if key == 'layer_decay' else 'null'} or change the model."
            )


def has_detection(name: str, options: dict[str, Any]) -> bool:
    """Return whether a network says of each image if there is any landslide: it has an option `detection`, and that is on.

    Raises:
        InputError: If the name or an option is refused.
    """
    require_options(name, options)
    return bool({**known_options(name), **options}.get("detection", False))


def is_depthwise(name: str, options: dict[str, Any]) -> bool:
    """Return whether a network consists mainly of depthwise convolutions, which processors compute faster in float32 than in bfloat16.

    Raises:
        InputError: If the name or an option is refused.

    Example:
        >>> is_depthwise("segmenter", {"encoder": "efficientnet_lite0"}), is_depthwise("unet", {})
        (True, False)
    """
    require_options(name, options)
    return {**known_options(name), **options}.get("encoder") in DEPTHWISE


def describe_models() -> list[dict[str, Any]]:
    """Return name, parameter counts and options of every network, for seven bands and default options, from the stored table."""
    rows = []
    for name in sorted(NETWORKS):
        row = stored_table()[name]
        options = ", ".join(f"{option}={default}" for option, default in row["options"].items())
        rows.append({"name": name, "parameters": row["parameters"], "trainable": row["trainable"], "options": options})
    return rows
