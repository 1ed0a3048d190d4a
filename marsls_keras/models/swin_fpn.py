"""Swin-FPN: one Swin Transformer of all bands, and a feature pyramid network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from marsls_keras.models.segmenter import segmenter


def swin_fpn(
    bands: Sequence[str],
    *,
    encoder: str = "swin_tiny",
    encoder_options: dict[str, Any] = {},  # noqa: B006 - never changed, and shown as the default
    decoder_channels: int = 256,
    dropout: float = 0.1,
) -> keras.Model:
    """Build the single-encoder baseline of DualSwinFusionSeg: a Swin Transformer of all bands under an FPN.

    It is `segmenter` with a Swin Transformer and the decoder fpn; `data.bands` chooses the bands of Table 5's rows.

    Args:
        bands: Names of the input bands, in the order of the channels.
        encoder: swin_tiny, small or base.
        encoder_options: Options of the encoder, those of `encoders.swin`.
        decoder_channels: Channels C of the decoder.
        dropout: Dropout rate before the last convolution, in [0, 1).

    Returns:
        A functional model from float (B, H, W, bands) to float32 logits (B, H, W, 1), H and W multiples of 32. The
        logits are computed at stride 4 and resized bilinearly.

    Raises:
        ValueError: If a name is unknown or a value out of range.

    With the defaults and seven bands it has 30,255,227 trainable parameters. The paper says about 33 million and does
    not describe its FPN.

    Reference:
        Kabir et al., "DualSwinFusionSeg", PBVS 2026, tables 3 and 5; Liu et al., "Swin Transformer", ICCV 2021; Lin et
        al., "Feature Pyramid Networks", CVPR 2017.

    Example:
        >>> from marsls_keras.models import build_model
        >>> tiny = {"embed_dim": 8, "depths": [1, 1, 1, 1], "heads": [1, 1, 2, 2]}
        >>> build_model("swin_fpn", bands=7, encoder_options=tiny, decoder_channels=8).output_shape
        (None, None, None, 1)
    """
    model = segmenter(
        bands,
        encoder=encoder,
        encoder_options=encoder_options,
        decoder="fpn",
        decoder_channels=decoder_channels,
        dropout=dropout,
    )
    return keras.Model(model.input, model.output, name="swin_fpn")
