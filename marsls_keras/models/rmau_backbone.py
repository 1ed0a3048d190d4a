"""RMAU-Net's heads on an encoder and decoder instead of its own U-Net."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from marsls_keras.layers import ResizeLike
from marsls_keras.models.decoders import DECODERS
from marsls_keras.models.decoders.blocks import conv_bn_relu
from marsls_keras.models.encoders import build_encoder
from marsls_keras.models.rmau_net import require_heads, with_heads


def rmau_backbone(
    bands: int = 7,
    *,
    encoder: str = "keras_mobilenet_v3_large",
    encoder_options: dict[str, Any] = {},  # noqa: B006 - never changed, and shown as the default
    decoder: str = "unet",
    decoder_channels: int = 128,
    filters: int = 64,
    heads: tuple[int, ...] = (64, 128, 256),
    head: str = "mean",
    detection: bool = False,
) -> keras.Model:
    """Build RMAU-Net with another backbone: an encoder and decoder, and RMAU-Net's heads at three resolutions.

    The rows of the paper's Table VIII beside its own network:

    | row | mIoU of the authors on Landslide4Sense | options |
    |---|---|---|
    | DeepLab-V3 | 60.49 | encoder resnet50, encoder_options {output_stride: 8}, decoder deeplabv3 |
    | MobileNet-V3 | 54.72 | the defaults |
    | EfficientNet-V2 | 57.27 | encoder keras_efficientnet_v2_b0 |

    The paper says that these replace the U-Net backbone and keep the heads, and no more. Chosen here: a 3 x 3
    convolution brings the decoder's map to F channels, which are resized to the images; the head of half size reads
    their means over 2 x 2 pixels; that of twice the size upsamples them and applies one more convolution.

    Args:
        bands: Number of input bands C.
        encoder: One of `models.encoders.ENCODERS`.
        encoder_options: Options of the encoder; an output_stride does not fit the decoder unet.
        decoder: One of `models.decoders.DECODERS`.
        decoder_channels: Channels of the decoder.
        filters: Channels F of the last map.
        heads: As in `rmau_net`.
        head: As in `rmau_net`.
        detection: As in `rmau_net`.

    Returns:
        A `MultiHeadModel` as `rmau_net`, H and W multiples of 32. With the defaults and seven bands it has 3,333,732
        parameters, 3,309,828 of them trainable; the paper counts none.

    Raises:
        ValueError: If a name is unknown or a value out of range.

    Reference:
        Pham et al., "RMAU-NET", 2025, section IV.C and Table VIII.

    Example:
        >>> from marsls_keras.models import build_model
        >>> build_model("rmau_backbone", bands=7, encoder="resnet18", filters=8, decoder_channels=16).output_shape
        (None, None, None, 1)
    """
    heads = tuple(heads)
    require_heads(heads, head)
    if decoder not in DECODERS or min(bands, decoder_channels, filters) < 1:
        raise ValueError(
            f"rmau_backbone needs a decoder of {', '.join(DECODERS)}, and bands, decoder_channels and filters of at "
            f"least 1. Received: decoder={decoder!r}, bands={bands}, decoder_channels={decoder_channels}, "
            f"filters={filters}"
        )
    if decoder == "unet" and encoder_options.get("output_stride", 32) != 32:
        raise ValueError(f"decoder unet needs an encoder without output_stride. Received: {encoder_options}")
    inputs = keras.Input((None, None, bands), name="image")
    pyramid = build_encoder(encoder, bands, **encoder_options)(inputs)
    x = DECODERS[decoder](pyramid, inputs, decoder_channels, "decoder")
    x = conv_bn_relu(x, filters, 3, "last")
    maps = {0: x if decoder == "unet" else ResizeLike(name="last_up")(x, inputs)}  # (B, H, W, F)
    if 64 in heads:
        maps[1] = layers.AveragePooling2D(2, name="pool_64")(maps[0])
    if 256 in heads:
        maps[-1] = conv_bn_relu(layers.UpSampling2D(name="up_256")(maps[0]), filters, 3, "decode_256")  # (B, 2H, 2W, F)
    return with_heads(inputs, maps, heads, head, detection, "rmau_backbone")
