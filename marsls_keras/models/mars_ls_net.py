"""MarsLS-Net: blocks of dilated convolutions, progressive expansion and attention, all at full resolution."""

from __future__ import annotations

import math

import keras
from keras import layers

from marsls_keras.layers import PenAttention

SIZES = {
    f"{letter}{kernel}": (filters, kernel)
    for letter, filters in (("s", 16), ("m", 32), ("l", 48))
    for kernel in (3, 4, 5)
}
"""Filters and kernel side of the nine configurations in the paper's Table 3."""


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
    """Build MarsLS-Net: a convolution, blocks of progressively expanded neuron attention, and a 1 x 1 convolution.

    All layers work at full resolution, without pooling except in the attention (`PenAttention`). With seven bands, two
    terms and four levels the network has k²(16F² + 7F) + 16F² + 346F + 49 parameters.

    The paper gives number and width of the parts. Choices of this package where it is silent:
    - Attention over all 16,384 pixels of a tile would need 34 GB for the scores of a batch of 16. Here pixels attend
      along rows in even levels and along columns in odd ones ("axial"), or means of 4 x 4 pixels attend to one another
      ("pooled"). On the first fold of MMLS's published tiles, s3, 8 epochs, two seeds (and so two divisions into
      folds), the best validation mIoU was 0.7100 and 0.8018 axial, 0.7091 and 0.7967 pooled; a step of training takes
      1.4 times the CPU time axial. Axial is the default, for accuracy and because it takes any size.
    - The factor of L2 is 1e-4, the toolkit's weight decay. A batch normalisation follows each of the convolutions it
      acts on, so it does not limit what the network can compute, but keeps the gradients of these kernels from
      shrinking as the kernels grow.
    - Batch normalisation has momentum 0.9, as all networks here: an epoch of 275 tiles has 18 steps.
    - Convolutions begin He-uniform; the projections of the attention, which no ReLU follows, Glorot-uniform, as in
      Keras' own.

    Args:
        bands: Number of input bands C.
        size: Variant of Table 3: s, m or l for 16, 32 or 48 filters, and 3, 4 or 5 for the side of the kernels. The
            paper proposes l5.
        filters: Filters F, instead of those of `size`.
        kernel_size: Side k of the kernels in pixels, instead of that of `size`.
        levels: Number of blocks.
        expansion_terms: Terms u of the progressive expansion; 1 is none (Table 4, "w/o PE").
        attention: "axial" (along rows and along columns in turns) or "pooled" (among means of 4 x 4 pixels); same
            parameters.
        conv_pe: False leaves out the dilated convolutions with their expansion (Table 4, "w/o ConvPE").
        mhsa: False leaves out the self-attention (Table 4, "w/o MHSA").
        l2: Factor of the sum of squares of the kernels of the dilated convolutions, which is added to the loss.

    Returns:
        A functional model from float (B, H, W, C) to float32 logits (B, H, W, 1), for any H and W; with pooled
        attention both must be divisible by 4. With the defaults and seven bands it has 983,521 parameters, and a
        training step of 16 tiles of 128 x 128 needs 6.3 GiB by XLA's count for the CPU, 4.7 GiB with pooled attention.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Paheding et al., "MarsLS-Net: Martian Landslides Segmentation Network and Benchmark Dataset", WACV 2024.

    Example:
        >>> from marsls_keras.models import build_model
        >>> build_model("mars_ls_net", size="s3").count_params()
        47553
    """
    if size not in SIZES:
        raise ValueError(f"mars_ls_net has the sizes {', '.join(SIZES)}. Received: size={size!r}")
    if attention not in ("axial", "pooled"):
        raise ValueError(f"mars_ls_net has the attention axial or pooled. Received: attention={attention!r}")
    filters, kernel_size = (
        own if given is None else given for given, own in zip((filters, kernel_size), SIZES[size], strict=True)
    )
    counts = {
        "bands": bands,
        "filters": filters,
        "kernel_size": kernel_size,
        "levels": levels,
        "expansion_terms": expansion_terms,
    }
    if not all(type(count) is int and count >= 1 for count in counts.values()) or not 0 <= l2 < math.inf:
        received = ", ".join(f"{name}={value!r}" for name, value in {**counts, "l2": l2}.items())
        raise ValueError(f"mars_ls_net needs whole numbers of at least 1 and l2 of at least 0. Received: {received}")
    inputs = keras.Input((None, None, bands), name="image")
    x = layers.Conv2D(filters, kernel_size, padding="same", kernel_initializer="he_uniform", name="stem")(
        inputs
    )  # (B, H, W, F)
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
    # The policy of this layer alone is float32, so that logits keep their precision under mixed precision.
    logits = layers.Conv2D(1, 1, kernel_initializer="he_uniform", dtype="float32", name="logits")(x)  # (B, H, W, 1)
    return keras.Model(inputs, logits, name="mars_ls_net")
