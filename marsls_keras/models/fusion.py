"""How the maps of several encoders become one, scale by scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from keras import layers

from marsls_keras.layers import CBAM, Blend, EfficientChannelAttention, Gate, SqueezeExcitation


def concat(maps: Sequence[Any], name: str, attention: Callable[..., Any] | None = None) -> Any:
    """Concatenate n maps (B, h, w, C) and bring them back to C channels by a biased 1 x 1 convolution (DualSwinFusionSeg, eq. 2).

    With `attention`, it weights the nC channels first: the paper's "attention-gated" fusion (Table 10), of which it tells no more.
    """
    x = layers.Concatenate(name=f"{name}_concat")(list(maps))  # (B, h, w, nC)
    if attention:
        x = attention(name=f"{name}_attention")(x)
    return layers.Conv2D(maps[0].shape[-1], 1, name=f"{name}_conv")(x)  # (B, h, w, C)


FUSIONS: dict[str, Callable[[Sequence[Any], str], Any]] = {
    "concat": concat,
    # Table 8; that the weights sum to 1 is our choice.
    "weighted_sum": lambda maps, name: Blend(name=f"{name}_blend")(list(maps)),
    "gated": lambda maps, name: Gate(name=f"{name}_gate")(list(maps)),
    "concat_se": partial(concat, attention=SqueezeExcitation),
    "concat_eca": partial(concat, attention=EfficientChannelAttention),
    "concat_cbam": partial(concat, attention=CBAM),
}
"""From two or more maps of one shape, and a name for the layers, to one map of that shape."""

LATE = "late"
"""No fusion of maps: a decoder for each encoder, and a blend of their logits."""
