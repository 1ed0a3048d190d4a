"""DualSwinFusionSeg: one Swin V2 encoder for each group of bands, fusion at every scale, and one decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from marsls_keras.models.segmenter import segmenter

PAPER_GROUPS = {"rgb": ("red", "green", "blue"), "aux": ("thermal", "slope", "dem", "gray")}
"""DualSwinFusionSeg's two groups of bands, in its order."""


def dual_swin(
    bands: Sequence[str],
    *,
    groups: Mapping[str, Sequence[str]] = PAPER_GROUPS,
    encoder: str = "swin_v2_small",
    encoder_options: dict[str, Any] = {},  # noqa: B006 - never changed, and shown as the default
    fusion: str = "concat",
    decoder: str = "unetplusplus",
    decoder_channels: int = 256,
    dropout: float = 0.1,
    input_attention: str = "none",
    encoder_attention: str = "none",
    decoder_attention: str = "none",
    deep_supervision: bool = False,
) -> keras.Model:
    """Build DualSwinFusionSeg: one encoder per group of bands, fusion at every scale, and a decoder.

    Args:
        bands: Names of the input bands, in the order of the channels.
        groups: Bands by group; each group has an encoder of its own. Together they must name every input band, each
            once. One group is the single encoder of the paper's ablation, without fusion.
        encoder: Encoder of every group, one of `models.encoders.ENCODERS`; the paper's are SwinV2's.
        encoder_options: Options of the encoder, such as those of `encoders.swin_v2`.
        fusion: concat, weighted_sum, gated, concat_se, concat_eca, concat_cbam (`fusion.FUSIONS`), or late: a decoder
            for each group, their logits blended by learned weights.
        decoder: unetplusplus, fpn, upernet, segformer_mlp, deeplabv3, deeplabv3plus, pspnet or hybrid.
        decoder_channels: Channels C of the decoder.
        dropout: Dropout rate before the last convolution, in [0, 1).
        input_attention: Channel attention on the bands of each group, before its encoder (Table 10's IA): eca, se, cbam
            or none.
        encoder_attention: Channel attention on every map of each encoder, before the fusion (IE), likewise.
        decoder_attention: Channel attention on the decoder's output (DO), likewise.
        deep_supervision: Whether to train a mask at each full-size node of UNet++ (`segmenter`); the paper's network
            does not (section 3.4).

    Returns:
        A functional model from float (B, H, W, bands) to float32 logits (B, H, W, 1), H and W multiples of 32. The
        logits are computed at stride 4 and resized bilinearly. With the defaults it has 113,437,717 parameters,
        113,429,013 of them trainable.

    On tiles of 128 pixels the stages have 32, 16, 8 and 4 tokens per side. Windows of 8 tokens are clamped to them:
    stages three and four are one window each, of 8 x 8 and 4 x 4 tokens, without a shift. timm's network, built for the
    256 pixels of pretraining, does not clamp windows on 128 pixels: every other block of stage three is shifted by 4
    tokens, which divides the one window into four, and stage four is padded to 8 x 8 with zeros that take part in the
    attention. Its features differ there; on 256 pixels they are equal.

    Table 10's rows have the decoder hybrid: E10-a is encoder_attention eca with fusion concat_eca; E11 has eca, eca and
    cbam at the three places and concat_cbam; E9 eca, se, cbam and concat_eca. The paper does not say where in an
    encoder the attention is; here it weights the maps that the encoder gives, and leaves its pretrained blocks as they
    are.

    Raises:
        ValueError: If a name is unknown, a value out of range, or groups and bands do not fit together.

    Reference:
        Kabir et al., "DualSwinFusionSeg", PBVS 2026. Two SwinV2-S, concatenation and UNet++ are the submitted network;
        the other fusions and decoders are those of its ablations.

    Example:
        >>> from marsls_keras.models import build_model
        >>> tiny = {"embed_dim": 8, "depths": [1, 1, 1, 1], "heads": [1, 2, 4, 8]}
        >>> build_model("dual_swin", encoder_options=tiny, decoder_channels=8).output_shape
        (None, None, None, 1)
    """
    model = segmenter(
        bands,
        groups=groups,
        encoder=encoder,
        encoder_options=encoder_options,
        fusion=fusion,
        decoder=decoder,
        decoder_channels=decoder_channels,
        dropout=dropout,
        input_attention=input_attention,
        encoder_attention=encoder_attention,
        decoder_attention=decoder_attention,
        deep_supervision=deep_supervision,
    )
    return type(model)(model.input, model.output, name="dual_swin")
