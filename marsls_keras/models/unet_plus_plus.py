"""UNet++ on an encoder: nested dense skip connections from stride 32 to the size of the image."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from marsls_keras.models.decoders.blocks import conv_bn_relu
from marsls_keras.models.encoders import build_encoder


def unet_plus_plus(
    bands: int = 7,
    *,
    encoder: str = "resnet34",
    encoder_options: dict[str, Any] = {},  # noqa: B006 - never changed, and shown as the default
    decoder_channels: int = 256,
    dropout: float = 0.0,
) -> keras.Model:
    """Build UNet++ on the maps of an encoder, without deep supervision.

    Node x^(n,0) is the encoder's map at stride 2^n. Node x^(n,j) is two Conv 3 x 3 - BatchNorm - ReLU on the
    concatenation of the upsampled x^(n+1,j-1) and x^(n,j-1) … x^(n,0); upsampling repeats pixels. The last node of each
    scale has C, C / 2, C / 4 and C / 8 channels at strides 16, 8, 4 and 2, the others as many as the encoder's map. Two
    more convolutions at stride 1 have C / 16, and a 3 x 3 convolution gives the logits. The `segmenter`'s decoder
    unetplusplus is DualSwinFusionSeg's, which has C channels in all nodes and ends at stride 4.

    Args:
        bands: Number of input bands.
        encoder: One of `models.encoders.ENCODERS`. Without a map P1 the nodes end at stride 4, and two plain
            upsamplings follow.
        encoder_options: Options of the encoder, without an output_stride.
        decoder_channels: Channels C of the last node at stride 16, at least 16.
        dropout: Dropout rate before the last convolution, in [0, 1).

    Returns:
        A functional model from float (B, H, W, bands) to float32 logits (B, H, W, 1), H and W multiples of 32. With the
        defaults and seven bands it has 26,111,953 parameters, 26,091,153 of them trainable, as UnetPlusPlus of
        segmentation_models.pytorch 0.6, whose outputs are equal for equal weights.

    Raises:
        ValueError: If a name is unknown or a value out of range.

    Reference:
        Zhou et al., "UNet++", DLMIA 2018. Encoder and channels are the defaults of segmentation_models.pytorch;
        MMLSv2's Table 2 (mIoU 0.823) names none.

    Example:
        >>> from marsls_keras.models import build_model
        >>> build_model("unet_plus_plus", bands=7, encoder="resnet18", decoder_channels=64).output_shape
        (None, None, None, 1)
    """
    if bands < 1 or decoder_channels < 16 or not 0 <= dropout < 1:
        raise ValueError(
            "unet_plus_plus needs at least one band, decoder_channels of at least 16 and dropout in [0, 1). "
            f"Received: bands={bands}, decoder_channels={decoder_channels}, dropout={dropout}"
        )
    if encoder_options.get("output_stride", 32) != 32:
        raise ValueError(
            "unet_plus_plus doubles the size from level to level, so the encoder must not dilate: leave out "
            f"output_stride. Received: encoder_options={encoder_options}"
        )
    inputs = keras.Input((None, None, bands), name="image")
    maps = build_encoder(encoder, bands, **encoder_options)(inputs)
    nodes = {int(level[1]): [x] for level, x in maps.items()}  # by scale n, in the order of j
    finest = min(nodes)
    for j in range(1, 6 - finest):
        for n in range(finest, 6 - j):
            last = n + j == 5
            width = decoder_channels >> (4 - n) if last else nodes[n][0].shape[-1]
            nodes[n].append(_node(nodes[n + 1][j - 1], nodes[n], width, f"decoder_x{n}{j}"))
    x = nodes[finest][-1]
    for n in reversed(range(finest)):
        x = _node(x, [], decoder_channels >> (4 - n), f"decoder_up{n}")  # (B, H / 2^n, W / 2^n, C / 2^(4 - n))
    if dropout:
        x = layers.Dropout(dropout, name="decoder_dropout")(x)
    # Float32 under every policy, so that logits keep their precision under mixed precision.
    logits = layers.Conv2D(1, 3, padding="same", dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="unet_plus_plus")  # (B, H, W, 1)


def _node(below: Any, beside: list[Any], filters: int, name: str) -> Any:
    x = layers.UpSampling2D(name=f"{name}_up")(below)
    if beside:
        x = layers.Concatenate(name=f"{name}_concat")([x, *reversed(beside)])
    for k in (1, 2):
        x = conv_bn_relu(x, filters, 3, f"{name}_{k}")
    return x
