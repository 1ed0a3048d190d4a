"""DeepLabV3: a dilated encoder, atrous spatial pyramid pooling, and logits at the encoder's stride."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from marsls_keras.layers import ResizeLike
from marsls_keras.models.decoders.deeplabv3 import deeplabv3
from marsls_keras.models.encoders import build_encoder


def deeplab_v3(
    bands: int = 7,
    *,
    encoder: str = "resnet34",
    encoder_options: dict[str, Any] = {"output_stride": 8},  # noqa: B006 - never changed, and shown as the default
    decoder_channels: int = 256,
    rates: Sequence[int] = (12, 24, 36),
    dropout: float = 0.5,
) -> keras.Model:
    """Build DeepLabV3: an encoder that dilates instead of its last strides, and atrous spatial pyramid pooling.

    Args:
        bands: Number of input bands C.
        encoder: One of `models.encoders.ENCODERS`.
        encoder_options: Options of the encoder. Only the ResNets have an output_stride; for another encoder give {}.
        decoder_channels: Channels of the decoder.
        rates: Dilation rates of the pooling. On tiles of 128 pixels the map has 16 x 16 pixels at stride 8, so that of
            the kernels with the default's rates 24 and 36 only the middle meets the map.
        dropout: Dropout rate after the pooling, in [0, 1).

    Returns:
        A functional model from float (B, H, W, C) to float32 logits (B, H, W, 1), H and W multiples of 32. Logits are
        computed at the stride of the encoder's last map and resized bilinearly. With the defaults and seven bands it
        has 26,040,257 parameters, 26,019,649 of them trainable, as DeepLabV3 of segmentation_models.pytorch 0.6, whose
        outputs are equal for equal weights.

    Raises:
        ValueError: If a name is unknown or a value out of range.

    Reference:
        Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017. Encoder, rates and channels
        are the defaults of segmentation_models.pytorch; MMLSv2's Table 2 (mIoU 0.817) names none.

    Example:
        >>> from marsls_keras.models import build_model
        >>> build_model("deeplab_v3", bands=7, encoder="resnet18", decoder_channels=64).output_shape
        (None, None, None, 1)
    """
    if min(bands, decoder_channels) < 1 or not 0 <= dropout < 1:
        raise ValueError(
            "deeplab_v3 needs bands and decoder_channels of at least 1 and dropout in [0, 1). "
            f"Received: bands={bands}, decoder_channels={decoder_channels}, dropout={dropout}"
        )
    inputs = keras.Input((None, None, bands), name="image")
    maps = build_encoder(encoder, bands, **encoder_options)(inputs)
    x = deeplabv3([maps["P5"]], decoder_channels, "decoder", rates, dropout)  # (B, H / s, W / s, channels)
    # Float32 under every policy, so that logits keep their precision under mixed precision.
    x = layers.Conv2D(1, 1, dtype="float32", name="decoder_logits")(x)
    x = ResizeLike(align_corners=True, dtype="float32", name="logits")(x, inputs)
    return keras.Model(inputs, x, name="deeplab_v3")  # (B, H, W, 1)
