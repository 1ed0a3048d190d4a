"""RMAU-Net: a U-Net of residual blocks and multi-head attention, with masks at three resolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from marsls_keras.layers import (
    CBAM,
    BatchNormalization,
    ChannelMean,
    DimensionAttention,
    MeanProbability,
    ResConv,
    SqueezeExcitation,
)
from marsls_keras.models.heads import MultiHeadModel
from marsls_keras.models.networks import LANDSLIDE, MASK

_HEADS = {64: 1, 128: 0, 256: -1}
"""Level of each head, by its side in pixels on tiles of 128; maps at level n have 2^-n times the side of the image."""


def _double_conv(filters: int, name: str) -> Callable[[Any], Any]:
    """Return a block of two Conv 3 x 3 - BatchNorm - LeakyReLU, as in the paper's baseline (section III.B)."""

    def block(x: Any) -> Any:
        for i in (1, 2):
            x = layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal", name=f"{name}_conv{i}")(x)
            x = BatchNormalization(momentum=0.9, name=f"{name}_bn{i}")(x)
            x = layers.LeakyReLU(0.3, name=f"{name}_relu{i}")(x)
        return x

    return block


_BLOCKS: dict[str, Callable[[int, str], Callable[[Any], Any]]] = {
    "res_conv": lambda filters, name: ResConv(filters, name=name),
    "double_conv": _double_conv,
}
_ATTENTIONS: dict[str, Callable[[int, str], Callable[[Any], Any]]] = {
    "multihead": lambda width, name: DimensionAttention(width, name=name),
    "cbam": lambda _, name: CBAM(name=name),
    "se": lambda _, name: SqueezeExcitation(name=name),
    "none": lambda *_: lambda x: x,
}
_LOGITS: dict[str, Callable[[str], Callable[[Any], Any]]] = {
    # Float32 under every policy, so that logits keep their precision under mixed precision.
    "mean": lambda name: ChannelMean(dtype="float32", name=name),
    "conv": lambda name: layers.Conv2D(1, 1, dtype="float32", name=name),
}


def rmau_net(
    bands: int = 7,
    *,
    filters: int = 64,
    poolings: int = 3,
    block: str = "res_conv",
    attention: str = "multihead",
    heads: tuple[int, ...] = (64, 128, 256),
    head: str = "mean",
    detection: bool = False,
    tile_size: int = 128,
) -> keras.Model:
    """Build RMAU-Net: a U-Net of residual blocks and attention, with a mask head at each of three resolutions.

    Args:
        bands: Number of input bands C.
        filters: Filters F of the first level; level i has F * 2**i.
        poolings: Number of poolings: 3 as settled from the figures, or 4. Height and width must be divisible by
            2**poolings.
        block: "res_conv" (`ResConv`), or "double_conv", the baseline's two 3 x 3 convolutions.
        attention: Attention after every block of both paths: "multihead" (`DimensionAttention`), "cbam", "se" or
            "none".
        heads: Masks that are trained and averaged, by their side in pixels on the paper's tiles of 128: 64, 128, 256.
            On tiles of any size they have half, equal and twice the side. (128,) is the network with one head.
        head: Layer from maps to a mask: "mean" over the channels, as in the paper, or "conv", a 1 x 1 convolution with
            bias.
        detection: Whether to add a detection head, for "any landslide in this image".
        tile_size: Width in pixels of the tiles that the attention "multihead" is built for. Other widths work, with its
            pooled maps resized to those of this width and back (see `DimensionAttention`); train on tiles of this width
            where you can. Windows of several sizes are best served by the largest. Must be divisible by 2**poolings.

    Returns:
        A `MultiHeadModel` from float (B, H, W, C) to float32 logits. In training a dict {"mask_64": (B, H/2, W/2, 1),
        "mask_128": (B, H, W, 1), "mask_256": (B, 2H, 2W, 1)} of the chosen heads, with `detection` also
        "landslide" (B, 1). In inference (B, H, W, 1), the average of the heads' probabilities as a logit; with
        `detection` {"mask": (B, H, W, 1), "landslide": (B, 1)}.

    Raises:
        ValueError: If an argument is out of range.

    Parameters without the heads, at 23 bands, 3 poolings, 64 filters and tiles of 128, moving statistics included:

    | block | attention | parameters |
    |---|---|---|
    | double_conv | none | 7,805,632 |
    | res_conv | none | 16,873,600 |
    | res_conv | multihead | 17,720,592 |

    What the options brought the authors on Landslide4Sense (mIoU in %, threshold 0.5; Tables VII and VIII, which
    contradict the abstract and are quoted instead of it):

    | options | mIoU |
    |---|---|
    | double_conv, none, heads (128,) | 61.76 |
    | double_conv, none | 62.19 |
    | double_conv, cbam | 62.53 |
    | double_conv, se | 62.86 |
    | double_conv, multihead | 63.05 |
    | res_conv, none | 63.45 |
    | res_conv, multihead | 63.88 |

    The paper is silent on the rest. Chosen here: upsampling repeats pixels (UpSampling2D), the upsampled maps come
    after the skipped ones; the head of half size reads the decoder's maps of that size; that of twice the size
    upsamples the last maps and applies one more block of F filters, without attention, since it belongs to neither
    path; the detection head (section V) is the mean of the last maps over pixels and a dense layer. A mean over
    channels has no bias and starts from activations that are positive on average: before training every probability
    lies near 0.6. On real tiles that costs the first epoch and no more: with 8 filters, five epochs on fold 0 of MMLS
    v1 gave a held-out mIoU of 0.666, 0.697, 0.689, 0.691, 0.693 for the mean and 0.665, 0.689, 0.688, 0.685, 0.678 for
    the convolution, whose loss fell lower (0.257 against 0.308). One run each, so neither is better; the paper's is the
    default.

    Reference:
        Pham et al., "RMAU-NET: A Residual-Multihead-Attention U-Net Architecture for Landslide Segmentation and
        Detection from Remote Sensing Images", 2025.

    Example:
        >>> from marsls_keras.models import build_model
        >>> build_model("rmau_net", bands=7, filters=8).output_shape
        (None, None, None, 1)
    """
    heads = tuple(heads)
    _require(bands, filters, poolings, block, attention, heads, head, tile_size)

    def stage(x: Any, level: int, name: str) -> Any:
        x = _BLOCKS[block](filters * 2**level, name)(x)  # (B, H / 2^level, W / 2^level, F 2^level)
        return _ATTENTIONS[attention](tile_size // 2**level, f"{name}_attention")(x)

    inputs = keras.Input((None, None, bands), name="image")
    maps, x = {}, inputs
    for level in range(poolings):
        maps[level] = stage(x, level, f"down{level}")
        x = layers.MaxPooling2D(2, name=f"pool{level}")(maps[level])
    maps[poolings] = stage(x, poolings, "bottom")
    for level in reversed(range(poolings)):
        x = layers.UpSampling2D(name=f"up{level}")(maps[level + 1])
        x = layers.Concatenate(name=f"skip{level}")([maps[level], x])  # 3F 2^level maps
        maps[level] = stage(x, level, f"decode{level}")
    if 256 in heads:
        x = layers.UpSampling2D(name="up_256")(maps[0])
        maps[-1] = _BLOCKS[block](filters, "decode_256")(x)  # (B, 2H, 2W, F)
    return with_heads(inputs, maps, heads, head, detection, "rmau_net")


def with_heads(
    inputs: Any, maps: dict[int, Any], heads: tuple[int, ...], head: str, detection: bool, name: str
) -> MultiHeadModel:
    """Build a model of RMAU-Net's mask heads, and of its detection head if there is one, on the maps of a backbone.

    Args:
        inputs: Symbolic images (B, H, W, C).
        maps: Symbolic maps by level: 0 of the images' size, 1 of half and -1 of twice this size.
        heads: As in `rmau_net`.
        head: Likewise.
        detection: Likewise.
        name: Name of the model.

    Example:
        >>> image = keras.Input((32, 32, 7))
        >>> with_heads(image, {0: keras.layers.Conv2D(8, 1)(image)}, (128,), "mean", False, "plain").output_shape
        (None, 32, 32, 1)
    """
    masks = [_LOGITS[head](f"{MASK}_{side}")(maps[_HEADS[side]]) for side in sorted(heads)]
    # A single head at the size of the image needs no averaging.
    mask = masks[0] if heads == (128,) else MeanProbability(dtype="float32", name=MASK)(masks, inputs)  # (B, H, W, 1)
    if not detection:
        return MultiHeadModel(inputs, mask, name=name)
    x = layers.GlobalAveragePooling2D(dtype="float32", name="pool_landslide")(maps[0])  # (B, F)
    return MultiHeadModel(
        inputs, {MASK: mask, LANDSLIDE: layers.Dense(1, dtype="float32", name=LANDSLIDE)(x)}, name=name
    )


def _require(
    bands: int,
    filters: int,
    poolings: int,
    block: str,
    attention: str,
    heads: tuple[int, ...],
    head: str,
    tile_size: int,
) -> None:
    """Check that arguments are in range.

    Raises:
        ValueError: If one is not.
    """
    if min(bands, filters, poolings) < 1:
        raise ValueError(
            "rmau_net needs bands, filters and poolings of at least 1. "
            f"Received: bands={bands}, filters={filters}, poolings={poolings}"
        )
    for name, value, known in (("block", block, _BLOCKS), ("attention", attention, _ATTENTIONS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}. Received: {value!r}")
    require_heads(heads, head)
    if tile_size < 1 or tile_size % 2**poolings:
        raise ValueError(
            f"tile_size must be divisible by {2**poolings}, for {poolings} poolings. Received: {tile_size}"
        )


def require_heads(heads: tuple[int, ...], head: str) -> None:
    """Check the heads of RMAU-Net.

    Raises:
        ValueError: If a head or its kind is unknown, or a head is named twice.

    Example:
        >>> require_heads((64, 128), "mean")
    """
    if head not in _LOGITS:
        raise ValueError(f"head must be one of {', '.join(_LOGITS)}. Received: {head!r}")
    if not heads or any(type(side) is not int or side not in _HEADS for side in heads) or len(set(heads)) < len(heads):
        raise ValueError(f"heads must be some of 64, 128, 256, each once. Received: {list(heads)}")
