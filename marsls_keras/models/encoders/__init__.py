"""Encoders by name, which all return a feature pyramid of the same strides; `register_encoder` adds one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras

from marsls_keras.models.encoders.applications import APPLICATIONS, application
from marsls_keras.models.encoders.cnn import CNNS, cnn
from marsls_keras.models.encoders.convnext import CONVNEXT, convnext
from marsls_keras.models.encoders.dino import DINO, dino
from marsls_keras.models.encoders.efficientnet_lite import EFFICIENTNET_LITE, efficientnet_lite
from marsls_keras.models.encoders.hgnet_v2 import HGNET_V2, hgnet_v2
from marsls_keras.models.encoders.mit import MIT, mit
from marsls_keras.models.encoders.resnet import RESNET, resnet
from marsls_keras.models.encoders.swin import swin
from marsls_keras.models.encoders.swin_v2 import swin_v2
from marsls_keras.models.encoders.vit import VIT, vit
from marsls_keras.models.networks import (
    CONVNEXT_LEVELS,
    HGNET_LEVELS,
    LITE_LEVELS,
    RESNET_LEVELS,
    STAGES,
    SWIN_LEVELS,
    VIT_LEVELS,
    add_part,
)
from marsls_keras.models.pyramid import LEVELS, pyramid_model


@dataclass(frozen=True)
class Encoder:
    """Function that applies an encoder, and the levels of its layers.

    Attributes:
        apply: Function of symbolic images (B, H, W, C), a group and keyword options that returns symbolic maps by name.
        levels: Levels of the encoder, input first: prefixes of the names of its layers.

    Example:
        >>> len(ENCODERS["efficientnet_lite0"].levels)
        8
    """

    apply: Callable[..., dict[str, Any]]
    levels: tuple[str, ...]


ENCODERS: dict[str, Encoder] = {
    "swin_v2_tiny": Encoder(partial(swin_v2, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24)), STAGES),
    "swin_v2_small": Encoder(swin_v2, STAGES),
    "swin_v2_base": Encoder(partial(swin_v2, embed_dim=128, heads=(4, 8, 16, 32)), STAGES),
    "swin_tiny": Encoder(swin, SWIN_LEVELS),
    "swin_small": Encoder(partial(swin, depths=(2, 2, 18, 2)), SWIN_LEVELS),
    "swin_base": Encoder(partial(swin, embed_dim=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32)), SWIN_LEVELS),
    **{name: Encoder(partial(cnn, name), STAGES[1:]) for name in CNNS},
    **{name: Encoder(partial(application, name), STAGES[1:]) for name in APPLICATIONS},
    **{name: Encoder(partial(efficientnet_lite, name), LITE_LEVELS) for name in EFFICIENTNET_LITE},
    **{name: Encoder(partial(mit, name), STAGES[1:]) for name in MIT},
    **{name: Encoder(partial(convnext, name), CONVNEXT_LEVELS) for name in CONVNEXT},
    **{name: Encoder(partial(resnet, name), RESNET_LEVELS) for name in RESNET},
    **{name: Encoder(partial(vit, name), VIT_LEVELS[name]) for name in VIT},
    **{name: Encoder(partial(dino, name), VIT_LEVELS[name]) for name in DINO},
    **{name: Encoder(partial(hgnet_v2, name), HGNET_LEVELS) for name in HGNET_V2},
}


def register_encoder(
    name: str, levels: Sequence[str]
) -> Callable[[Callable[..., dict[str, Any]]], Callable[..., dict[str, Any]]]:
    """Register an encoder from outside this package, for the option `encoder` of `segmenter` and `dual_swin`.

    The module that registers it must be imported before a run that uses it is trained or opened.

    Args:
        name: Unique name of the encoder.
        levels: Levels of the encoder, input first: prefixes of the names of its layers, for learning rates by level.

    Returns:
        A decorator for a function of symbolic images (B, H, W, C), a group, and keyword options. It returns symbolic
        maps {"P1"?, "P2", …, "P5"}, Pn (B, H / 2^n, W / 2^n, any channels). The names of layers must contain the group,
        so that they are unique with several groups of bands.

    Raises:
        ValueError: If the name is taken, or there is no level.

    Example:
        >>> from keras import layers
        >>> @register_encoder("plain", levels=["plain_p1", "plain_p2", "plain_p3", "plain_p4", "plain_p5"])
        ... def plain(x, group="", *, width=16):
        ...     maps = {}
        ...     for n in range(1, 6):
        ...         x = maps[f"P{n}"] = layers.Conv2D(width * n, 3, 2, "same", name=f"plain_p{n}_{group}")(x)
        ...     return maps
        >>> build_encoder("plain", bands=7, width=8).output["P5"].shape
        (None, None, None, 40)
    """
    if not levels:
        raise ValueError(
            f"Encoder {name!r} needs levels: what the names of its layers begin with. Received: {levels!r}"
        )

    def enter(apply: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        add_part("encoder", name, tuple(levels))
        ENCODERS[name] = Encoder(apply, tuple(levels))
        return apply

    return enter


def find_encoder(name: str) -> Encoder:
    """Return an encoder by name.

    Raises:
        ValueError: If there is none of this name.

    Example:
        >>> find_encoder("mit_b0").levels
        ('stage0', 'stage1', 'stage2', 'stage3')
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}. Received: {name!r}")
    return ENCODERS[name]


def build_encoder(name: str, bands: int = 3, group: str = "", **options: Any) -> keras.Model:
    """Build an encoder as a Keras model.

    Args:
        name: One of `ENCODERS`.
        bands: Number of input bands C.
        group: Part of the names of its layers, to make them unique with several encoders in a network.
        **options: Options of the encoder: those of `swin_v2`, `swin`, `vit` and `resnet`, or drop_path of `mit`,
            `convnext` and `dino`; the other CNNs have none.

    Returns:
        A model from float (B, H, W, C) to {"P2": …, "P3": …, "P4": …, "P5": …}, Pn (B, H / 2^n, W / 2^n, channels);
        ResNet, EfficientNet-Lite, HGNetV2 and the networks of keras.applications also return "P1". With an
        output_stride no map has a larger stride.

    Raises:
        ValueError: If the name or an option is unknown, or a value is out of range.

    Example:
        >>> {level: x.shape[-1] for level, x in build_encoder("efficientnet_lite0", bands=7).output.items()}
        {'P1': 16, 'P2': 24, 'P3': 40, 'P4': 112, 'P5': 320}
    """
    apply = find_encoder(name).apply
    known = [p.name for p in inspect.signature(apply).parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    if unknown := [option for option in options if option not in known]:
        raise ValueError(f"encoder_options: {name} has no {', '.join(unknown)}. It has: {', '.join(known) or 'none'}.")
    if bands < 1:
        raise ValueError(f"An encoder needs at least one band. Received: {bands}")
    inputs = keras.Input((None, None, bands), name=f"image_{group}" if group else "image")
    maps = apply(inputs, group, **options)
    return pyramid_model(inputs, maps, f"encoder_{group}" if group else name, options.get("output_stride", 32))


__all__ = ["ENCODERS", "LEVELS", "Encoder", "build_encoder", "find_encoder", "register_encoder"]
