"""Segmentation network with any encoder and decoder, and one encoder per group of bands."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import layers, ops

from marsls_keras.layers import Blend, ResizeLike
from marsls_keras.models.decoders import DECODERS
from marsls_keras.models.encoders import build_encoder
from marsls_keras.models.fusion import FUSIONS, LATE


def segmenter(
    bands: Sequence[str],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    encoder: str = "efficientnet_lite0",
    encoder_options: dict[str, Any] = {},  # noqa: B006 - never changed, and shown as the default
    fusion: str = "concat",
    decoder: str = "unet",
    decoder_channels: int = 128,
    dropout: float = 0.0,
) -> keras.Model:
    """Build a segmentation network: one encoder per group of bands, fusion at every scale, and a decoder.

    Args:
        bands: Names of the input bands, in the order of the channels.
        groups: Bands by group; each group has an encoder of its own. Together they must name every input band, each
            once. None: one encoder of all bands.
        encoder: Encoder of every group, one of `models.encoders.ENCODERS`: swin_v2_tiny, small or base; swin_tiny,
            small or base; efficientnet_lite0 to 4; mit_b0 to b5; convnext_tiny, small or base; convnext_v2_atto, femto,
            pico, nano, tiny or base; vit_small, base or large; dinov2_small, dinov2_reg_small or dinov3_small, each
            also base or large; hgnetv2_b0 to b4; resnet_v2_18_narrow, resnet_v2_18 or resnet_v2_50;
            efficientnet_v2_b0; of keras.applications keras_resnet50, 101 or 152, keras_densenet121, 169 or 201,
            keras_efficientnet_b0 to b5, keras_efficientnet_v2_b0 to b3 or s, keras_mobilenet_v3_small or large; or one
            that `models.encoders.register_encoder` added.
        encoder_options: Options of the encoder: those of `encoders.swin_v2`, `encoders.swin` and `encoders.vit`, or
            drop_path of `encoders.mit`, `encoders.convnext` and `encoders.dino`; the CNNs have none.
        fusion: concat, weighted_sum, gated, concat_se, concat_eca, concat_cbam (`fusion.FUSIONS`), or late: a decoder
            for each group, their logits blended by learned weights.
        decoder: unet, unetplusplus, fpn, upernet, segformer_mlp, deeplabv3plus or hybrid; or one that
            `models.decoders.register_decoder` added.
        decoder_channels: Channels C of the decoder.
        dropout: Dropout rate before the last convolution, in [0, 1).

    Returns:
        A functional model from float (B, H, W, bands) to float32 logits (B, H, W, 1), H and W multiples of 32. Of
        decoders that end at stride 4 the logits are resized bilinearly. With the defaults and seven bands it has
        3,467,605 parameters, 3,426,981 of them trainable.

    Raises:
        ValueError: If a name is unknown, a value out of range, or groups and bands do not fit together.

    Example:
        >>> from marsls_keras.models import build_model
        >>> build_model("segmenter", bands=["red", "green", "blue", "dem"]).output_shape
        (None, None, None, 1)
    """
    groups = {"": bands} if groups is None else groups
    _require(bands, groups, fusion, decoder, decoder_channels, dropout)
    inputs = keras.Input((None, None, len(bands)), name="image")
    pyramids = []
    for group, members in groups.items():
        places = [bands.index(band) for band in members]
        image = inputs if places == list(range(len(bands))) else ops.take(inputs, places, axis=-1)
        pyramids.append(build_encoder(encoder, len(places), group, **encoder_options)(image))
    if fusion == LATE and len(pyramids) > 1:
        names = [f"decoder_{group}" for group in groups]
    else:
        names = ["decoder"]
        if len(pyramids) > 1:
            fuse = FUSIONS[fusion]
            pyramids = [{level: fuse([maps[level] for maps in pyramids], f"fusion_{level}") for level in pyramids[0]}]
    logits = []
    for name, maps in zip(names, pyramids, strict=True):
        x = DECODERS[decoder](maps, inputs, decoder_channels, name)
        if dropout:
            x = layers.Dropout(dropout, name=f"{name}_dropout")(x)
        # Logits are float32 under every policy, so that they keep their precision under mixed precision.
        logits.append(layers.Conv2D(1, 1, dtype="float32", name=f"{name}_logits")(x))
    x = Blend(dtype="float32", name="blend")(logits) if len(logits) > 1 else logits[0]
    if decoder != "unet":  # the U-Net decoder ends at the size of the image
        x = ResizeLike(dtype="float32", name="logits")(x, inputs)
    return keras.Model(inputs, x, name="segmenter")  # (B, H, W, 1)


def _require(
    bands: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    fusion: str,
    decoder: str,
    decoder_channels: int,
    dropout: float,
) -> None:
    """Check that arguments are in range, and that groups and bands fit together.

    Raises:
        ValueError: If a check fails.
    """
    for option, value, known in (("fusion", fusion, [*FUSIONS, LATE]), ("decoder", decoder, DECODERS)):
        if value not in known:
            raise ValueError(f"{option} must be one of {', '.join(known)}. Received: {value!r}")
    if decoder_channels < 1 or not 0 <= dropout < 1:
        raise ValueError(
            "decoder_channels must be at least 1 and dropout in [0, 1). "
            f"Received: decoder_channels={decoder_channels}, dropout={dropout}"
        )
    listed = all(isinstance(members, list | tuple) and members for members in groups.values())
    if (
        not groups
        or not listed
        or not all(isinstance(name, str) and re.fullmatch("[A-Za-z0-9_]*", name) for name in groups)
    ):
        raise ValueError(
            "groups must be one or more names of letters, digits and _, each with a list of bands, "
            f"such as {{rgb: [red, green, blue]}}. Received: {groups}"
        )
    named = [band for members in groups.values() for band in members]
    problems = {
        "names bands that are not among the input": [band for band in named if band not in bands],
        "names bands more than once": [band for band in dict.fromkeys(named) if named.count(band) > 1],
        "leaves out input bands": [band for band in bands if band not in named],
    }
    if found := [f"{what}: {', '.join(map(str, which))}" for what, which in problems.items() if which]:
        raise ValueError(
            f"groups {'; '.join(found)}. The input bands are {', '.join(bands)} (data.bands). "
            f"Received: { ({name: list(members) for name, members in groups.items()}) }"
        )
