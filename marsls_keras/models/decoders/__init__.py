"""Decoders by name: from a feature pyramid to one feature map, at stride 4 or at the size of the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from marsls_keras.models.decoders.deeplabv3plus import deeplabv3plus
from marsls_keras.models.decoders.fpn import fpn
from marsls_keras.models.decoders.hybrid import hybrid
from marsls_keras.models.decoders.segformer_mlp import segformer_mlp
from marsls_keras.models.decoders.unet import unet
from marsls_keras.models.decoders.unetplusplus import unetplusplus
from marsls_keras.models.decoders.upernet import upernet
from marsls_keras.models.pyramid import LEVELS

Decoder = Callable[[dict[str, Any], Any, int, str], Any]
"""A decoder takes feature maps by name, images (B, H, W, bands), a number of channels and a prefix of layer names."""


def _of_pyramid(decode: Callable[[list[Any], int, str], Any]) -> Decoder:
    """Adapt a function of the list of P2 to P5 to the arguments of a `Decoder`."""
    return lambda maps, _, channels, name: decode([maps[level] for level in LEVELS], channels, name)


DECODERS: dict[str, Decoder] = {
    "unetplusplus": _of_pyramid(unetplusplus),
    "fpn": _of_pyramid(fpn),
    "upernet": _of_pyramid(upernet),
    "segformer_mlp": _of_pyramid(segformer_mlp),
    "deeplabv3plus": _of_pyramid(deeplabv3plus),
    "hybrid": _of_pyramid(hybrid),
    "unet": unet,
}

__all__ = ["DECODERS", "Decoder"]
