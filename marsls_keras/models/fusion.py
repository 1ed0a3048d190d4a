"""Fusion of the feature maps of several encoders, scale by scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from keras import layers

from marsls_keras.layers import CBAM, Blend, EfficientChannelAttention, Gate, SqueezeExcitation


def concat(maps: Sequence[Any], name: str, attention: Callable[..., Any] | None = None) -> Any:
    """Fuse n feature maps by concatenation and a 1 x 1 convolution with bias (DualSwinFusionSeg, eq. 2).

    Args:
        maps: n symbolic maps (B, h, w, C), all of one shape.
        name: Prefix of the names of the layers.
        attention: Class of a channel attention that weights the n C channels before the convolution: the paper's
            "attention-gated" fusion (Table 10), which it does not describe further.

    Returns:
        (B, h, w, C).

    Example:
        >>> maps = [keras.Input((8, 8, 16)), keras.Input((8, 8, 16))]
        >>> concat(maps, "fusion", attention=SqueezeExcitation).shape
        (None, 8, 8, 16)
    """
    x = layers.Concatenate(name=f"{name}_concat")(list(maps))  # (B, h, w, nC)
    if attention:
        x = attention(name=f"{name}_attention")(x)
    return layers.Conv2D(maps[0].shape[-1], 1, name=f"{name}_conv")(x)  # (B, h, w, C)


FUSIONS: dict[str, Callable[[Sequence[Any], str], Any]] = {
    "concat": concat,
    # Table 8 of DualSwinFusionSeg; weights that sum to 1 are a choice of this package.
    "weighted_sum": lambda maps, name: Blend(name=f"{name}_blend")(list(maps)),
    "gated": lambda maps, name: Gate(name=f"{name}_gate")(list(maps)),
    "concat_se": partial(concat, attention=SqueezeExcitation),
    "concat_eca": partial(concat, attention=EfficientChannelAttention),
    "concat_cbam": partial(concat, attention=CBAM),
}
"""Each takes two or more maps of one shape and a prefix of layer names, and returns one map of that shape."""

ATTENTIONS: dict[str, Callable[..., Any]] = {
    "eca": EfficientChannelAttention,
    "se": SqueezeExcitation,
    "cbam": CBAM,
}
"""Classes of channel attention by name."""


def attend(x: Any, attention: str, name: str) -> Any:
    """Weight the channels of a feature map by a channel attention of `ATTENTIONS`; "none" returns the map unchanged.

    Example:
        >>> attend(keras.Input((8, 8, 16)), "eca", "attention").shape
        (None, 8, 8, 16)
    """
    return x if attention == "none" else ATTENTIONS[attention](name=name)(x)


LATE = "late"
"""Late fusion: a decoder for each encoder, and a weighted mean of their logits instead of a fusion of maps."""
