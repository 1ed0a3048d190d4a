"""What is known of the networks without building one, or importing Keras: names, sizes, levels, options, parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("table.json")
"""Options with their defaults and parameter counts of every network; `python -m marsls_keras.models.table` writes it anew."""

STAGES = ("embed", "stage0", "stage1", "stage2", "stage3")
"""The levels of an encoder, input first; the names of its layers begin with them. A CNN has no first one."""

MASK = "mask"
"""Name of the layer that makes one mask of several, and of the mask among several outputs."""

LANDSLIDE = "landslide"
"""Name of the layer that says whether there is any landslide in the image."""


@dataclass(frozen=True)
class Network:
    """A network.

    Attributes:
        stride: From the options to the number that height and width must be divisible by.
        encoder: From the options to the levels of the encoder, input first: a prefix each, which the paths of its variables begin with.
            Without levels no part of the network can learn at a rate of its own.
        named: Whether the builder gets the names of the bands, because it treats them differently, and not their number.
        choices: The values of options that are names.
        build: Builder; first argument `bands`, then keyword options. None is the function of the network's name in the module of that
            name, which is imported when it is needed.
    """

    stride: Callable[..., int]
    encoder: Callable[..., list[str]] = lambda **_: []
    named: bool = False
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    build: Callable[..., Any] | None = None


NETWORKS: dict[str, Network] = {
    "dual_swin": Network(
        stride=lambda **_: 32,
        encoder=lambda encoder="swin_v2_small", **_: list(STAGES if encoder.startswith("swin_v2") else STAGES[1:]),
        named=True,
        choices={
            "encoder": (
                *("swin_v2_tiny", "swin_v2_small", "swin_v2_base"),
                *("resnet_v2_18_narrow", "resnet_v2_18", "resnet_v2_50", "efficientnet_v2_b0"),
            ),
            "fusion": ("concat", "weighted_sum", "gated", "concat_se", "concat_eca", "concat_cbam", "late"),
            "decoder": ("unetplusplus", "fpn", "upernet", "segformer_mlp", "deeplabv3plus", "hybrid"),
        },
    ),
    "mars_ls_net": Network(
        stride=lambda attention="axial", mhsa=True, **_: 4 if mhsa and attention == "pooled" else 1,
        choices={
            "size": tuple(f"{letter}{kernel}" for letter in "sml" for kernel in (3, 4, 5)),
            "attention": ("axial", "pooled"),
        },
    ),
    "rmau_net": Network(
        stride=lambda poolings=3, **_: 2**poolings,
        encoder=lambda poolings=3, **_: [*(f"down{level}" for level in range(poolings)), "bottom"],
        choices={"block": ("res_conv", "double_conv"), "attention": ("multihead", "cbam", "se", "none"), "head": ("mean", "conv")},
    ),
    "unet": Network(
        stride=lambda depth=4, **_: 2**depth,
        encoder=lambda depth=4, **_: [*(f"down{level}" for level in range(depth)), "bottom"],
    ),
}
"""The networks of this package by name."""


@cache
def stored_table() -> dict[str, dict[str, Any]]:
    """Return the stored table: of each network "options" with their defaults, "parameters" and "trainable" ones for seven bands."""
    table: dict[str, dict[str, Any]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table
