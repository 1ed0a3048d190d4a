"""Segmentation network with any encoder and decoder, and one encoder per group of bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import layers

from marsls_keras.layers import Blend, MeanProbability, ResizeLike
from marsls_keras.models.band_groups import bands_of, require_groups
from marsls_keras.models.decoders import DECODERS
from marsls_keras.models.decoders.unetplusplus import unetplusplus_nodes
from marsls_keras.models.encoders import build_encoder
from marsls_keras.models.fusion import ATTENTIONS, FUSIONS, LATE, attend
from marsls_keras.models.heads import MultiHeadModel
from marsls_keras.models.networks import MASK
from marsls_keras.models.pyramid import LEVELS


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
    input_attention: str = "none",
    encoder_attention: str = "none",
    decoder_attention: str = "none",
    deep_supervision: bool = False,
) -> keras.Model:
    """Build a segmentation network: one encoder per group of bands, fusion at every scale, and a decoder.

    Args:
        bands: Names of the input bands, in the order of the channels.
        groups: Bands by group; each group has an encoder of its own. Together they must name every input band, each
            once. None: one encoder of all bands.
        encoder: Encoder of every group, one of `models.encoders.ENCODERS`: swin_v2_tiny, small or base; swin_tiny,
            small or base; efficientnet_lite0 to 4; mit_b0 to b5; convnext_tiny, small or base; convnext_v2_atto, femto,
            pico, nano, tiny or base; vit_small, base or large; dinov2_small, dinov2_reg_small or dinov3_small, each
            also base or large; hgnetv2_b0 to b4; resnet18, 34, 50 or 101; resnet_v2_18_narrow, resnet_v2_18 or
            resnet_v2_50; efficientnet_v2_b0; of keras.applications keras_resnet50, 101 or 152, keras_densenet121, 169
            or 201, keras_efficientnet_b0 to b5, keras_efficientnet_v2_b0 to b3 or s, keras_mobilenet_v3_small or large;
            or one that `models.encoders.register_encoder` added.
        encoder_options: Options of the encoder: those of `encoders.swin_v2`, `encoders.swin`, `encoders.vit` and
            `encoders.resnet`, or drop_path of `encoders.mit`, `encoders.convnext` and `encoders.dino`; the other CNNs
            have none.
        fusion: concat, weighted_sum, gated, concat_se, concat_eca, concat_cbam (`fusion.FUSIONS`), or late: a decoder
            for each group, their logits blended by learned weights.
        decoder: unet, unetplusplus, fpn, upernet, segformer_mlp, deeplabv3, deeplabv3plus, pspnet or hybrid; or one
            that `models.decoders.register_decoder` added.
        decoder_channels: Channels C of the decoder.
        dropout: Dropout rate before the last convolution, in [0, 1).
        input_attention: Channel attention on the bands of each group, before its encoder: eca, se, cbam or none.
        encoder_attention: Channel attention on every map of each encoder, before the fusion, likewise.
        decoder_attention: Channel attention on the decoder's output, before the dropout, likewise.
        deep_supervision: Whether to train a mask at each full-size node of the decoder unetplusplus, and to predict the
            mean of their probabilities. Refused for other decoders and for late fusion.

    Returns:
        A functional model from float (B, H, W, bands) to float32 logits (B, H, W, 1), H and W multiples of 32; with
        `deep_supervision` a `MultiHeadModel`. Of decoders that end at a larger stride than 1 the logits are resized
        bilinearly. With the defaults and seven bands it has 3,467,605 parameters, 3,426,981 of them trainable.

    Raises:
        ValueError: If a name is unknown, a value out of range, or groups and bands do not fit together.

    Example:
        >>> from marsls_keras.models import build_model
        >>> build_model("segmenter", bands=["red", "green", "blue", "dem"]).output_shape
        (None, None, None, 1)
    """
    groups = {"": bands} if groups is None else groups
    require_groups(bands, groups)
    _require(fusion, decoder, decoder_channels, dropout)
    _require_extras(
        fusion,
        decoder,
        deep_supervision,
        input_attention=input_attention,
        encoder_attention=encoder_attention,
        decoder_attention=decoder_attention,
    )
    if decoder == "unet" and encoder_options.get("output_stride", 32) != 32:
        raise ValueError(
            "decoder unet doubles the size from level to level, so the encoder must not dilate: leave out "
            f"output_stride. Received: encoder_options={encoder_options}"
        )
    inputs = keras.Input((None, None, len(bands)), name="image")
    pyramids = []
    for group, members in groups.items():
        suffix = f"_{group}" if group else ""
        image = attend(bands_of(inputs, bands, members), input_attention, f"input_attention{suffix}")
        maps = build_encoder(encoder, len(members), group, **encoder_options)(image)
        pyramids.append(
            {level: attend(x, encoder_attention, f"attention{suffix}_{level}") for level, x in maps.items()}
        )
    if fusion == LATE and len(pyramids) > 1:
        names = [f"decoder_{group}" for group in groups]
    else:
        names = ["decoder"]
        if len(pyramids) > 1:
            fuse = FUSIONS[fusion]
            pyramids = [{level: fuse([maps[level] for maps in pyramids], f"fusion_{level}") for level in pyramids[0]}]

    def logits(x: Any, name: str, layer: str) -> Any:
        """Apply attention, dropout and the last convolution to the output of a decoder."""
        x = attend(x, decoder_attention, f"{name}_attention")
        if dropout:
            x = layers.Dropout(dropout, name=f"{name}_dropout")(x)
        # Logits are float32 under every policy, so that they keep their precision under mixed precision.
        return layers.Conv2D(1, 1, dtype="float32", name=layer)(x)

    if deep_supervision:
        nodes = unetplusplus_nodes([pyramids[0][level] for level in LEVELS], decoder_channels, "decoder")
        masks = [logits(x, f"decoder_x0{j}", f"{MASK}_x0{j}") for j, x in enumerate(nodes, 1)]
        x = MeanProbability(dtype="float32", name=MASK)(masks, inputs)  # (B, H, W, 1)
        return MultiHeadModel(inputs, x, name="segmenter")
    outputs = [
        logits(DECODERS[decoder](maps, inputs, decoder_channels, name), name, f"{name}_logits")
        for name, maps in zip(names, pyramids, strict=True)
    ]
    x = Blend(dtype="float32", name="blend")(outputs) if len(outputs) > 1 else outputs[0]
    if decoder != "unet":  # the U-Net decoder ends at the size of the image
        x = ResizeLike(dtype="float32", name="logits")(x, inputs)
    return keras.Model(inputs, x, name="segmenter")  # (B, H, W, 1)


def _require_extras(fusion: str, decoder: str, deep_supervision: bool, **attentions: str) -> None:
    """Check the channel attentions by option, and that deep supervision has the decoder that it needs.

    Raises:
        ValueError: If a check fails.
    """
    for option, value in attentions.items():
        if value not in ("none", *ATTENTIONS):
            raise ValueError(f"{option} must be one of none, {', '.join(ATTENTIONS)}. Received: {value!r}")
    if deep_supervision and (decoder != "unetplusplus" or fusion == LATE):
        raise ValueError(
            "deep_supervision needs decoder unetplusplus and a fusion of maps, not late. "
            f"Received: decoder={decoder!r}, fusion={fusion!r}"
        )


def _require(fusion: str, decoder: str, decoder_channels: int, dropout: float) -> None:
    """Check that arguments are in range.

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
