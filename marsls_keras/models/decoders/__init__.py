"""Decoders by name: functions from a feature pyramid to one feature map, at the stride of one of its maps or 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from marsls_keras.models.decoders.deeplabv3 import deeplabv3
from marsls_keras.models.decoders.deeplabv3plus import deeplabv3plus
from marsls_keras.models.decoders.fpn import fpn
from marsls_keras.models.decoders.hybrid import hybrid
from marsls_keras.models.decoders.pspnet import pspnet
from marsls_keras.models.decoders.segformer_mlp import segformer_mlp
from marsls_keras.models.decoders.unet import unet
from marsls_keras.models.decoders.unetplusplus import unetplusplus
from marsls_keras.models.decoders.upernet import upernet
from marsls_keras.models.networks import add_part
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
    "deeplabv3": _of_pyramid(deeplabv3),
    "deeplabv3plus": _of_pyramid(deeplabv3plus),
    "pspnet": _of_pyramid(pspnet),
    "hybrid": _of_pyramid(hybrid),
    "unet": unet,
}


def register_decoder(name: str) -> Callable[[Decoder], Decoder]:
    """Register a decoder from outside this package, for the option `decoder` of `segmenter` and `dual_swin`.

    The module that registers it must be imported before a run that uses it is trained or opened.

    Args:
        name: Unique name of the decoder.

    Returns:
        A decorator for a function of maps by name (P2 to P5, and P1 where the encoder has it), the images (B, H, W,
        bands), a number of channels, and a prefix of the names of its layers. It returns one map of any stride. Logits
        are resized to the images.

    Raises:
        ValueError: If the name is taken.

    Example:
        >>> from keras import layers
        >>> @register_decoder("finest")
        ... def finest(maps, image, channels, name):
        ...     return layers.Conv2D(channels, 3, padding="same", name=f"{name}_conv")(maps["P2"])
    """

    def enter(decode: Decoder) -> Decoder:
        add_part("decoder", name)
        DECODERS[name] = decode
        return decode

    return enter


__all__ = ["DECODERS", "Decoder", "register_decoder"]
