"""DeepLabV3+: a dilated encoder, separable atrous pyramid pooling, and details of the map at stride 4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from marsls_keras.layers import ResizeLike
from marsls_keras.models.decoders.aspp import aspp
from marsls_keras.models.decoders.blocks import conv_bn_relu, resize_like
from marsls_keras.models.encoders import build_encoder

_DETAILS = 48


def deeplab_v3_plus(
    bands: int = 7,
    *,
    encoder: str = "resnet34",
    encoder_options: dict[str, Any] = {"output_stride": 16},  # noqa: B006 - never changed, and shown as the default
    decoder_channels: int = 256,
    rates: Sequence[int] = (12, 24, 36),
    dropout: float = 0.5,
) -> keras.Model:
    """Build DeepLabV3+: DeepLabV3 with separable convolutions, refined by the encoder's map at stride 4.

    After the atrous spatial pyramid pooling and another convolution the map is resized to stride 4 and concatenated
    with 48 channels of the encoder's map there. One more convolution follows. All 3 x 3 convolutions of the decoder are
    depthwise separable. The `segmenter`'s decoder deeplabv3plus has plain ones, and needs no dilated encoder.

    Args:
        bands: Number of input bands C.
        encoder: One of `models.encoders.ENCODERS`.
        encoder_options: Options of the encoder. Only the ResNets have an output_stride; for another encoder give {}.
        decoder_channels: Channels of the decoder.
        rates: Dilation rates of the pooling. On tiles of 128 pixels the map has 8 x 8 pixels at stride 16, so that of
            the default's kernels only the middle meets the map.
        dropout: Dropout rate after the pooling, in [0, 1).

    Returns:
        A functional model from float (B, H, W, C) to float32 logits (B, H, W, 1), H and W multiples of 32. Logits are
        computed at stride 4 and resized bilinearly. With the defaults and seven bands it has 22,471,217 parameters,
        22,450,001 of them trainable, as DeepLabV3Plus of segmentation_models.pytorch 0.6, whose outputs are equal for
        equal weights.

    Raises:
        ValueError: If a name is unknown or a value out of range.

    Reference:
        Chen et al., "Encoder-Decoder with Atrous Separable Convolution", ECCV 2018. Encoder, rates and channels are the
        defaults of segmentation_models.pytorch; MMLSv2's Table 2 (mIoU 0.829) and MarsLS-Net's (0.6131) name none.

    Example:
        >>> from marsls_keras.models import build_model
        >>> build_model("deeplab_v3_plus", bands=7, encoder="resnet18", decoder_channels=64).output_shape
        (None, None, None, 1)
    """
    if min(bands, decoder_channels) < 1 or not 0 <= dropout < 1:
        raise ValueError(
            "deeplab_v3_plus needs bands and decoder_channels of at least 1 and dropout in [0, 1). "
            f"Received: bands={bands}, decoder_channels={decoder_channels}, dropout={dropout}"
        )
    inputs = keras.Input((None, None, bands), name="image")
    maps = build_encoder(encoder, bands, **encoder_options)(inputs)
    x = aspp(maps["P5"], decoder_channels, rates, "decoder", separable=True, dropout=dropout)
    x = conv_bn_relu(x, decoder_channels, 3, "decoder_refine1", separable=True)  # (B, H / s, W / s, channels)
    details = conv_bn_relu(maps["P2"], _DETAILS, 1, "decoder_details")
    x = resize_like(x, details, "decoder_up", align_corners=True)
    x = layers.Concatenate(name="decoder_concat")([x, details])  # (B, H / 4, W / 4, channels + 48)
    x = conv_bn_relu(x, decoder_channels, 3, "decoder_refine2", separable=True)
    # Float32 under every policy, so that logits keep their precision under mixed precision.
    x = layers.Conv2D(1, 1, dtype="float32", name="decoder_logits")(x)
    x = ResizeLike(align_corners=True, dtype="float32", name="logits")(x, inputs)
    return keras.Model(inputs, x, name="deeplab_v3_plus")  # (B, H, W, 1)
