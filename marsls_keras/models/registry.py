"""Registry of networks: look up their names and options, check tile sizes, and build them by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

from marsls_keras.bands.names import BANDS
from marsls_keras.config import Training
from marsls_keras.errors import InputError, listing
from marsls_keras.lazy_imports import keras
from marsls_keras.models.networks import DEPTHWISE, NETWORKS, REGISTERED, Network, stored_table
from marsls_keras.models.weights.sources import AUTO, automatic_source
from marsls_keras.suggestions import did_you_mean

_TYPES: dict[type, tuple[type, ...]] = {
    **{kind: (kind,) for kind in (bool, int, str, dict)},
    float: (int, float),
    **dict.fromkeys((list, tuple), (list, tuple)),
}
"""Accepted types of an option's value, by the type of its default."""

_ENTRIES: dict[str, Network] = dict(NETWORKS)


def register(name: str, network: Network) -> Callable[[Callable[..., keras.Model]], Callable[..., keras.Model]]:
    """Return a decorator that registers the builder of a network from outside this package.

    Args:
        name: Name of the network.
        network: Description of the network; the decorator sets `build`.

    Example:
        >>> @register("plain", Network(stride=lambda **_: 1))
        ... def plain(bands: int, *, filters: int = 8) -> keras.Model:
        ...     image = keras.Input((None, None, bands))
        ...     x = keras.layers.Conv2D(filters, 3, padding="same")(image)
        ...     return keras.Model(image, keras.layers.Conv2D(1, 1)(x))
    """

    def enter(build: Callable[..., keras.Model]) -> Callable[..., keras.Model]:
        _ENTRIES[name] = replace(network, build=build)
        return build

    return enter


def model_names() -> list[str]:
    """Return the sorted names of all networks.

    Example:
        >>> "unet" in model_names()
        True
    """
    return sorted(_ENTRIES)


def entry(name: str) -> Network:
    """Return the description of a network, without building it.

    Raises:
        InputError: If there is no such network.

    Example:
        >>> entry("unet").named
        False
    """
    if name not in _ENTRIES:
        raise InputError(f"There is no model {name!r}.{did_you_mean(name, _ENTRIES)} Known:{listing(model_names())}")
    return _ENTRIES[name]


def builder(name: str) -> Callable[..., keras.Model]:
    """Return the function that builds a network: first argument `bands`, then keyword options.

    For a network of this package this imports its module and Keras.

    Example:
        >>> builder("unet")(7, depth=2).name
        'unet'
    """
    own = entry(name).build
    return own if own is not None else getattr(import_module(f"marsls_keras.models.{name}"), name)


def signature_options(name: str) -> dict[str, Any]:
    """Return the options of a network and their defaults, from the signature of its builder.

    Example:
        >>> signature_options("unet")
        {'base_filters': 16, 'depth': 4, 'dropout': 0.0}
    """
    parameters = inspect.signature(builder(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def known_options(name: str) -> dict[str, Any]:
    """Return the options of a network and their defaults, without importing Keras for a network of this package.

    Raises:
        InputError: If there is no such network.

    Example:
        >>> known_options("unet")
        {'base_filters': 16, 'depth': 4, 'dropout': 0.0}
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

    Example:
        >>> build_model("unet", bands=3, depth=2).output_shape
        (None, None, None, 1)
    """
    require_options(name, options)
    found = entry(name)
    if found.named and isinstance(bands, int):
        if not 1 <= bands <= len(BANDS):
            raise InputError(
                f"{name} needs the names of the bands, or the number of the first of {', '.join(BANDS)}. "
                f"Received: bands={bands}"
            )
        bands = BANDS[:bands]
    try:
        return builder(name)(bands if found.named or isinstance(bands, int) else len(bands), **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"model.options: {error}") from None


def require_options(name: str, options: dict[str, Any]) -> None:
    """Check name and options of a network.

    Options must be known. Values must have the type of the option's default, and be among its choices if it has any.

    Raises:
        InputError: If the name or an option is unknown, or a value has the wrong type or is not a choice.

    Example:
        >>> require_options("unet", {"depht": 3})
        Traceback (most recent call last):
            ...
        marsls_keras.errors.InputError: model.options: unet has no option depht. Did you mean depth? It has: ...
    """
    choices, known = entry(name).choices, known_options(name)
    unknown = [option for option in options if option not in known]
    if unknown:
        raise InputError(
            f"model.options: {name} has no option {', '.join(unknown)}.{did_you_mean(unknown[0], known)} "
            f"It has: {', '.join(known)}."
        )
    for option, value in options.items():
        default = known[option]
        allowed = _TYPES.get(type(default))
        if allowed and type(value) not in allowed:
            kind = type(default).__name__
            raise InputError(f"model.options.{option}: expected {kind}, such as {default!r}. Received: {value!r}")
        if option in choices and value not in (possible := (*choices[option], *REGISTERED.get(option, ()))):
            one_of = f"{option} must be one of {', '.join(possible)}."
            raise InputError(f"model.options: {one_of}{did_you_mean(value, possible)} Received: {value!r}")


def all_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the values of all options of a network: the given ones, and defaults for the others.

    Raises:
        InputError: As `require_options`.

    Example:
        >>> all_options("unet", {"depth": 3})
        {'base_filters': 16, 'depth': 3, 'dropout': 0.0}
    """
    require_options(name, options)
    return {**known_options(name), **options}


def require_size(name: str, options: dict[str, Any], height: int, width: int) -> None:
    """Check that a network accepts a tile size in pixels.

    Raises:
        InputError: If height or width is not divisible by the network's stride, or as `require_options`.

    Example:
        >>> require_size("unet", {"depth": 3}, 64, 128)
    """
    stride = entry(name).stride(**all_options(name, options))
    if height % stride or width % stride:
        side = max(round(max(height, width) / stride), -(-16 // stride)) * stride  # data.resize is at least 16 pixels
        raise InputError(
            f"{name} needs height and width divisible by {stride}; the tiles or windows are {height} x {width}. "
            f"data.resize brings tiles to another size: --set data.resize={side}"
        )


def encoder_levels(name: str, options: dict[str, Any]) -> list[str]:
    """Return the levels of a network's encoder, input first, as prefixes of the paths of their variables.

    Returns:
        Such as ["down0", "down1", "bottom"]; empty if the network has no encoder.

    Raises:
        InputError: As `require_options`.

    Example:
        >>> encoder_levels("unet", {"depth": 2})
        ['down0', 'down1', 'bottom']
    """
    chosen = all_options(name, options)
    try:
        return entry(name).encoder(**chosen)
    except ValueError as error:
        raise InputError(f"model.options: {error}") from None


def encoder_groups(name: str, bands: Sequence[str], options: dict[str, Any]) -> dict[str, Sequence[str]]:
    """Return the names of the bands of each encoder, by group: the option `groups`, or all bands in one group "".

    Raises:
        InputError: As `require_options`.

    Example:
        >>> encoder_groups("unet", ["red", "green"], {})
        {'': ['red', 'green']}
    """
    groups: Mapping[str, Sequence[str]] | None = all_options(name, options).get("groups")
    return {"": bands} if groups is None else dict(groups)


def pretrained_source(name: str, options: dict[str, Any], source: str | None) -> str | None:
    """Resolve the source of pretrained weights of a network; None for random weights.

    Args:
        name: Name of the network.
        options: Its options.
        source: As `model.pretrained`. "auto" is the published checkpoint of the encoder in an installed package, or
            None if there is none.

    Raises:
        InputError: As `require_options`.

    Example:
        >>> pretrained_source("unet", {}, "auto") is None
        True
    """
    if source != AUTO:
        return source
    return automatic_source(all_options(name, options).get("encoder"))


def require_encoder(config: Training, encoder: Sequence[str]) -> None:
    """Check that a network has encoder levels if the configuration sets learning rates of the encoder.

    Args:
        config: Configuration of training.
        encoder: Levels of the encoder, from `encoder_levels`.

    Raises:
        InputError: If there are no levels but `layer_decay` or `encoder_learning_rate` is set.

    Example:
        >>> require_encoder(Training(layer_decay=0.7), ["down0", "down1", "bottom"])
    """
    if encoder:
        return
    for key, asked in (
        ("layer_decay", config.layer_decay != 1),
        ("encoder_learning_rate", config.encoder_learning_rate is not None),
    ):
        if asked:
            raise InputError(
                f"training.{key} is {getattr(config, key):g}, but the network has no encoder with levels. "
                f"Set it to {'1' if key == 'layer_decay' else 'null'} or change the model."
            )


def has_detection(name: str, options: dict[str, Any]) -> bool:
    """Return whether a network has a head for image-level detection, that is an option `detection` that is True.

    Raises:
        InputError: As `require_options`.

    Example:
        >>> has_detection("rmau_net", {"detection": True})
        True
    """
    return bool(all_options(name, options).get("detection", False))


def is_depthwise(name: str, options: dict[str, Any]) -> bool:
    """Return whether a network consists mainly of depthwise convolutions.

    CPUs compute these faster in float32 than in bfloat16.

    Raises:
        InputError: As `require_options`.

    Example:
        >>> is_depthwise("segmenter", {"encoder": "efficientnet_lite0"}), is_depthwise("unet", {})
        (True, False)
    """
    return all_options(name, options).get("encoder") in DEPTHWISE
