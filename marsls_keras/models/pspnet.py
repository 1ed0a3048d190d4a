"""PSPNet: the first stages of an encoder, and pyramid pooling of their last map."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from marsls_keras.layers import ResizeLike
from marsls_keras.models.decoders.pspnet import pspnet as pyramid_pooling
from marsls_keras.models.encoders import build_encoder
from marsls_keras.models.pyramid import LEVELS


def pspnet(
    bands: int = 7,
    *,
    encoder: str = "resnet34",
    encoder_options: dict[str, Any] = {},  # noqa: B006 - never changed, and shown as the default
    level: str = "P3",
    decoder_channels: int = 512,
    dropout: float = 0.2,
) -> keras.Model:
    """Build PSPNet: an encoder up to one of its maps, pyramid pooling of this map, and a 3 x 3 convolution to logits.

    Args:
        bands: Number of input bands C.
        encoder: One of `models.encoders.ENCODERS`.
        encoder_options: Options of the encoder.
        level: Map that is pooled, "P2" to "P5"; later stages of the encoder are left out. "P3" is at stride 8. The
            authors' network reaches this stride with all stages: "P5" with encoder_options {"output_stride": 8}.
        decoder_channels: Channels of the decoder.
        dropout: Rate at which whole channels are dropped before the last convolution, in [0, 1).

    Returns:
        A functional model from float (B, H, W, C) to float32 logits (B, H, W, 1), H and W multiples of 32. Logits are
        computed at the stride of the map and resized bilinearly. With the defaults and seven bands it has 1,518,177
        parameters, 1,513,761 of them trainable. PSPNet of segmentation_models.pytorch 0.6 counts 19,936,768 more
        trainable ones, in two stages that it never applies; for equal weights its outputs are equal.

    Raises:
        ValueError: If a name is unknown or a value out of range.

    Reference:
        Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017. Encoder, level and channels are the defaults of
        segmentation_models.pytorch; MMLSv2's Table 2 (mIoU 0.828) and MarsLS-Net's (0.5641) name none.

    Example:
        >>> from marsls_keras.models import build_model
        >>> build_model("pspnet", bands=7, encoder="resnet18", decoder_channels=64).output_shape
        (None, None, None, 1)
    """
    if level not in LEVELS or min(bands, decoder_channels) < 1 or not 0 <= dropout < 1:
        raise ValueError(
            f"pspnet needs a level of {', '.join(LEVELS)}, bands and decoder_channels of at least 1 and dropout in "
            f"[0, 1). Received: level={level!r}, bands={bands}, decoder_channels={decoder_channels}, dropout={dropout}"
        )
    inputs = keras.Input((None, None, bands), name="image")
    whole = build_encoder(encoder, bands, **encoder_options)
    x = keras.Model(whole.input, whole.output[level], name=whole.name)(inputs)  # stages behind the map are not built
    x = pyramid_pooling([x], decoder_channels, "decoder", dropout)  # (B, H / s, W / s, channels)
    # Float32 under every policy, so that logits keep their precision under mixed precision.
    x = layers.Conv2D(1, 3, padding="same", dtype="float32", name="decoder_logits")(x)
    x = ResizeLike(align_corners=True, dtype="float32", name="logits")(x, inputs)
    return keras.Model(inputs, x, name="pspnet")  # (B, H, W, 1)
