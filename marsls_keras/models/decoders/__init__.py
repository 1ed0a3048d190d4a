"""The decoders by name: from the maps of a pyramid, the finest first, to one map of the finest's size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from marsls_keras.models.decoders.deeplabv3plus import deeplabv3plus
from marsls_keras.models.decoders.fpn import fpn
from marsls_keras.models.decoders.hybrid import hybrid
from marsls_keras.models.decoders.segformer_mlp import segformer_mlp
from marsls_keras.models.decoders.unetplusplus import unetplusplus
from marsls_keras.models.decoders.upernet import upernet

DECODERS: dict[str, Callable[[list[Any], int, str], Any]] = {
    "unetplusplus": unetplusplus,
    "fpn": fpn,
    "upernet": upernet,
    "segformer_mlp": segformer_mlp,
    "deeplabv3plus": deeplabv3plus,
    "hybrid": hybrid,
}

__all__ = ["DECODERS"]
