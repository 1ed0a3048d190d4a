"""SegFormer: a MiT encoder of all bands, and a decoder of linear layers."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from marsls_keras.models.segmenter import segmenter

_NARROW = ("mit_b0", "mit_b1")
"""Encoders under a decoder of 256 channels; the others have 768."""


def segformer(
    bands: Sequence[str],
    *,
    encoder: str = "mit_b0",
    decoder_channels: int | None = None,
    dropout: float = 0.1,
    drop_path: float = 0.1,
) -> keras.Model:
    """Build SegFormer: a MiT encoder, and a decoder of linear layers on its four maps.

    It is `segmenter` with a MiT and the decoder segformer_mlp.

    Args:
        bands: Names of the input bands, in the order of the channels.
        encoder: mit_b0 to mit_b5. MMLSv2 and MarsLS-Net do not say which they took.
        decoder_channels: Channels C of the decoder; None takes the paper's, 256 for B0 and B1 and 768 for the others.
        dropout: Dropout rate before the last convolution, in [0, 1).
        drop_path: Rate of stochastic depth at the encoder's last block, in [0, 1).

    Returns:
        A functional model from float (B, H, W, bands) to float32 logits (B, H, W, 1), H and W multiples of 32. The
        logits are computed at stride 4 and resized bilinearly.

    Raises:
        ValueError: If a name is unknown or a value out of range.

    Trainable parameters with seven bands, which are those of transformers' SegformerForSemanticSegmentation with one
    label: 3,720,673 (B0), 13,690,049 (B1), 27,359,937 (B2), 47,235,777 (B3), 64,006,337 (B4) and 84,606,657 (B5).

    Reference:
        Xie et al., "SegFormer", NeurIPS 2021.

    Example:
        >>> from marsls_keras.models import build_model
        >>> build_model("segformer", bands=7).output_shape
        (None, None, None, 1)
    """
    model = segmenter(
        bands,
        encoder=encoder,
        encoder_options={"drop_path": drop_path},
        decoder="segformer_mlp",
        decoder_channels=(256 if encoder in _NARROW else 768) if decoder_channels is None else decoder_channels,
        dropout=dropout,
    )
    return keras.Model(model.input, model.output, name="segformer")
