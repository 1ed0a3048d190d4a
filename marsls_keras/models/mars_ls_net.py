"""MarsLS-Net: stacked blocks of dilated convolutions, progressive expansion and attention, all at full resolution."""

from __future__ import annotations

import keras
from keras import layers

from marsls_keras.layers import PenAttention
from marsls_keras.layers.spatial_attention import POOL
from marsls_keras.models.registry import register

SIZES = {f"{letter}{kernel}": (filters, kernel) for letter, filters in (("s", 16), ("m", 32), ("l", 48)) for kernel in (3, 4, 5)}
"""The nine configurations of the paper's Table 3: filters and side of the kernels by name."""


@register("mars_ls_net", stride=lambda attention="axial", mhsa=True, **_: POOL if mhsa and attention == "pooled" else 1)
def mars_ls_net(
    bands: int = 7,
    *,
    size: str = "l5",
    filters: int | None = None,
    kernel_size: int | None = None,
    levels: int = 4,
    expansion_terms: int = 2,
    attention: str = "axial",
    conv_pe: bool = True,
    mhsa: bool = True,
    l2: float = 1e-4,
) -> keras.Model:
    filters, kernel_size = filters or SIZES[size][0], kernel_size or SIZES[size][1]
    inputs = keras.Input((None, None, bands), name="image")
    x = layers.Conv2D(filters, kernel_size, padding="same", kernel_initializer="he_uniform", name="stem")(inputs)  # (B, H, W, F)
    for level in range(levels):
        layout = attention if attention == "pooled" else ("rows", "columns")[level % 2]
        x = PenAttention(
            filters,
            kernel_size,
            expansion_terms=expansion_terms,
            layout=layout,
            conv_pe=conv_pe,
            mhsa=mhsa,
            l2=l2,
            name=f"level{level}",
        )(x)  # (B, H, W, F)
    logits = layers.Conv2D(1, 1, kernel_initializer="he_uniform", dtype="float32", name="logits")(x)  # (B, H, W, 1)
    return keras.Model(inputs, logits, name="mars_ls_net")
