"""Descriptions of the networks that do not need Keras: names, strides, encoder levels, choices of options."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("table.json")
"""File of default options and parameter counts of every network; `python -m marsls_keras.models.table` rewrites it."""

STAGES = ("embed", "stage0", "stage1", "stage2", "stage3")
"""Levels of an encoder, input first: prefixes of the names of its layers. A CNN has no level "embed"."""

SWIN_LEVELS = tuple(f"swin_{level}" for level in STAGES)
"""Levels of a Swin Transformer (V1)."""

LITE_LEVELS = ("stem", *(f"stage{i}" for i in range(7)))
"""Levels of an EfficientNet-Lite."""

LITE_LAST = {"P2": "stage1", "P3": "stage2", "P4": "stage4", "P5": "stage6"}
"""The last level of an EfficientNet-Lite for each map of the pyramid."""

CONVNEXT_LEVELS = ("stem", *STAGES[1:])
"""Levels of a ConvNeXt."""

RESNET_LEVELS = ("resnet_stem", *(f"resnet_stage{i}" for i in range(4)))
"""Levels of a ResNet."""

HGNET_LEVELS = tuple(f"hgnet_{level}" for level in ("stem", *STAGES[1:]))
"""Levels of an HGNetV2."""

VIT_LEVELS = {
    f"{kind}_{size}": ("vit_embed", *(f"vit_block{i}" for i in range(blocks)), "vit_norm")
    for kind in ("vit", "dinov2", "dinov2_reg", "dinov3")
    for size, blocks in (("small", 12), ("base", 12), ("large", 24))
}
"""Levels of each plain vision transformer."""

MASK = "mask"
"""Name of the layer that fuses several masks, and of the mask among several outputs."""

LANDSLIDE = "landslide"
"""Name of the detection head: the layer that predicts whether an image contains any landslide."""


@dataclass(frozen=True)
class Network:
    """Description of a network besides its options, which are in the signature of its builder.

    Attributes:
        stride: Function of all options, as keywords, to the divisor of valid heights and widths.
        encoder: Function of all options to the levels of the encoder, input first, as prefixes of the paths of their
            variables. Without levels the encoder cannot have learning rates of its own.
        named: Whether the builder takes the names of the bands instead of their number.
        choices: Accepted values of options that are names.
        build: Builder; first argument `bands`, then keyword options. None stands for the function of the network's name
            in the module of that name, which is imported on demand.

    Example:
        >>> Network(stride=lambda depth, **_: 2**depth).stride(depth=3, dropout=0.1)
        8
    """

    stride: Callable[..., int]
    encoder: Callable[..., list[str]] = lambda **_: []
    named: bool = False
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    build: Callable[..., Any] | None = None


_SWIN_V2S = ("swin_v2_tiny", "swin_v2_small", "swin_v2_base")
_SWINS = ("swin_tiny", "swin_small", "swin_base")
_CNNS = ("resnet_v2_18_narrow", "resnet_v2_18", "resnet_v2_50", "efficientnet_v2_b0")
_LITES = tuple(f"efficientnet_lite{i}" for i in range(5))
_MITS = tuple(f"mit_b{i}" for i in range(6))
_CONVNEXTS = (
    *(f"convnext_{size}" for size in ("tiny", "small", "base")),
    *(f"convnext_v2_{size}" for size in ("atto", "femto", "pico", "nano", "tiny", "base")),
)
_HGNETS = tuple(f"hgnetv2_b{i}" for i in range(5))
_MOBILE = (
    *(f"keras_efficientnet_b{n}" for n in range(6)),
    *(f"keras_efficientnet_v2_{size}" for size in ("b0", "b1", "b2", "b3", "s")),
    *(f"keras_mobilenet_v3_{size}" for size in ("small", "large")),
)
_RESNETS = tuple(f"resnet{n}" for n in (18, 34, 50, 101))
_KERAS = (*(f"keras_resnet{n}" for n in (50, 101, 152)), *(f"keras_densenet{n}" for n in (121, 169, 201)), *_MOBILE)
DEPTHWISE = (*_LITES, *_MOBILE)
"""Encoders of inverted bottlenecks, which spend most time in depthwise convolutions."""
_PARTS = {
    "encoder": (
        *(*_SWIN_V2S, *_SWINS, *_MITS, *VIT_LEVELS),
        *(*_CNNS, *_KERAS, *_LITES, *_CONVNEXTS, *_RESNETS, *_HGNETS),
    ),
    "fusion": ("concat", "weighted_sum", "gated", "concat_se", "concat_eca", "concat_cbam", "late"),
    "decoder": (
        *("unet", "unetplusplus", "fpn", "upernet", "segformer_mlp", "deeplabv3", "deeplabv3plus", "pspnet"),
        "hybrid",
    ),
}


_ATTENTIONS = dict.fromkeys(
    ("input_attention", "encoder_attention", "decoder_attention"), ("none", "eca", "se", "cbam")
)

REGISTERED: dict[str, dict[str, tuple[str, ...]]] = {"encoder": {}, "decoder": {}}
"""Registered encoders and decoders from outside this package: levels, input first, by option and name."""


def add_part(option: str, name: str, levels: tuple[str, ...] = ()) -> None:
    """Add the name of an encoder or decoder from outside this package to the choices of the networks.

    Args:
        option: "encoder" or "decoder".
        name: Name of the part.
        levels: Levels of an encoder, input first.

    Raises:
        ValueError: If the name is taken.

    Example:
        >>> add_part("decoder", "unet")
        Traceback (most recent call last):
        ...
        ValueError: There is decoder 'unet' already. Choose another name.
    """
    if name in _PARTS[option] or name in REGISTERED[option]:
        raise ValueError(f"There is {option} {name!r} already. Choose another name.")
    REGISTERED[option][name] = levels


def _levels(encoder: str) -> list[str]:
    if encoder in REGISTERED["encoder"]:
        return list(REGISTERED["encoder"][encoder])
    if encoder in VIT_LEVELS:
        return list(VIT_LEVELS[encoder])
    for names, levels in (
        (_SWIN_V2S, STAGES),
        (_SWINS, SWIN_LEVELS),
        (_LITES, LITE_LEVELS),
        (_CONVNEXTS, CONVNEXT_LEVELS),
        (_RESNETS, RESNET_LEVELS),
        (_HGNETS, HGNET_LEVELS),
    ):
        if encoder in names:
            return list(levels)
    return list(STAGES[1:])


def _levels_to(encoder: str, level: str) -> list[str]:
    """Return the levels of an encoder up to the one whose last map is at a level of the pyramid."""
    found = _levels(encoder)
    if encoder in REGISTERED["encoder"]:  # where its maps are is not known
        return found
    last = LITE_LAST[level] if encoder in _LITES else f"stage{int(level[1]) - 2}"
    end = [name.endswith(last) for name in found]
    return found[: end.index(True) + 1] if True in end else found  # a vision transformer has no stages


def _path(depth: int, **_: Any) -> list[str]:
    """Return the levels of the encoder of a U-Net without a separate one."""
    return [*(f"down{level}" for level in range(depth)), "bottom"]


_UNET = Network(stride=lambda depth, **_: 2**depth, encoder=_path)
_ENCODED = Network(
    stride=lambda **_: 32, encoder=lambda encoder, **_: _levels(encoder), choices={"encoder": _PARTS["encoder"]}
)

NETWORKS: dict[str, Network] = {
    "attention_unet": _UNET,
    "deeplab_v3": _ENCODED,
    "deeplab_v3_plus": _ENCODED,
    "dual_swin": Network(
        stride=lambda **_: 32,
        encoder=lambda encoder, **_: _levels(encoder),
        named=True,
        choices={**_PARTS, **_ATTENTIONS},
    ),
    "mars_ls_net": Network(
        stride=lambda attention, mhsa, **_: 4 if mhsa and attention == "pooled" else 1,
        choices={
            "size": tuple(f"{letter}{kernel}" for letter in "sml" for kernel in (3, 4, 5)),
            "attention": ("axial", "pooled"),
        },
    ),
    "mmsformer": Network(
        stride=lambda **_: 32,
        encoder=lambda **_: _levels("mit_b0"),
        named=True,
    ),
    "pspnet": replace(
        _ENCODED,
        encoder=lambda encoder, level, **_: _levels_to(encoder, level),
        choices={**_ENCODED.choices, "level": tuple(LITE_LAST)},
    ),
    "r2_unet": _UNET,
    "res_unet": _UNET,
    "rmau_backbone": replace(
        _ENCODED,
        choices={"encoder": _PARTS["encoder"], "decoder": _PARTS["decoder"], "head": ("mean", "conv")},
    ),
    "rmau_net": Network(
        stride=lambda poolings, **_: 2**poolings,
        encoder=lambda poolings, **_: [*(f"down{level}" for level in range(poolings)), "bottom"],
        choices={
            "block": ("res_conv", "double_conv"),
            "attention": ("multihead", "cbam", "se", "none"),
            "head": ("mean", "conv"),
        },
    ),
    "segmenter": Network(
        stride=lambda **_: 32,
        encoder=lambda encoder, **_: _levels(encoder),
        named=True,
        choices={**_PARTS, **_ATTENTIONS},
    ),
    "segformer": Network(
        stride=lambda **_: 32,
        encoder=lambda encoder, **_: _levels(encoder),
        named=True,
        choices={"encoder": _MITS},
    ),
    "swin_fpn": Network(
        stride=lambda **_: 32,
        encoder=lambda encoder, **_: _levels(encoder),
        named=True,
        choices={"encoder": _SWINS},
    ),
    "swin_unet": Network(stride=lambda **_: 32, encoder=lambda **_: list(SWIN_LEVELS)),
    "trans_unet": Network(
        stride=lambda **_: 16,
        encoder=lambda depth, **_: [
            *("stem", "stage0", "stage1", "stage2", "embed"),
            *(f"token_block{i}" for i in range(depth)),
            "token_norm",
        ],
    ),
    "unet": _UNET,
    "unet_plus_plus": _ENCODED,
}
"""The networks of this package by name."""


@cache
def stored_table() -> dict[str, dict[str, Any]]:
    """Return the stored table: by network its default "options", and its numbers of "parameters" and "trainable" ones.

    Example:
        >>> stored_table()["unet"]["parameters"]
        1946097
    """
    table: dict[str, dict[str, Any]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table
