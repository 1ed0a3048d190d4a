"""DualSwinFusionSeg: an encoder for each group of bands, fusion at every scale, one decoder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import layers, ops

from marsls_keras.layers import Blend, ResizeLike
from marsls_keras.models.decoders import DECODERS
from marsls_keras.models.encoders import LEVELS, build_encoder, find_encoder
from marsls_keras.models.fusion import FUSIONS, LATE
from marsls_keras.models.registry import register

GROUPS = {"rgb": ("red", "green", "blue"), "aux": ("thermal", "slope", "dem", "gray")}
"""The paper's two groups of bands, in its order."""


@register(
    "dual_swin",
    stride=lambda **_: 32,
    encoder=lambda encoder="swin_v2_small", **_: list(find_encoder(encoder).levels),
    named=True,
)
def dual_swin(
    bands: Sequence[str],
    *,
    groups: Mapping[str, Sequence[str]] = GROUPS,
    encoder: str = "swin_v2_small",
    encoder_options: dict[str, Any] = {},  # noqa: B006 - never changed, and shown as the default
    fusion: str = "concat",
    decoder: str = "unetplusplus",
    decoder_channels: int = 256,
    dropout: float = 0.1,
) -> keras.Model:
    """Build a DualSwinFusionSeg.

    Args:
        bands: Names of the input bands, in the order of the channels.
        groups: Bands by group; each group has an encoder of its own. Together they must name every input band, each once. One group is the
            single encoder of the paper's ablation, without fusion.
        encoder: Encoder of every group: swin_v2_tiny, swin_v2_small or swin_v2_base; or a CNN, resnet_v2_18_narrow, resnet_v2_18,
            resnet_v2_50 or efficientnet_v2_b0.
        encoder_options: Options of the encoder (`encoders.swin_v2`).
        fusion: concat, weighted_sum, gated, concat_se, concat_eca, concat_cbam (`fusion.FUSIONS`), or late: a decoder for each group,
            their logits blended by learned weights.
        decoder: unetplusplus, fpn, upernet, segformer_mlp, deeplabv3plus or hybrid.
        decoder_channels: Channels C of the decoder.
        dropout: Dropout rate before the last convolution, in [0, 1).

    Returns:
        A functional model from float (B, H, W, bands) to float32 logits (B, H, W, 1), H and W multiples of 32. The logits are computed at
        stride 4 and resized bilinearly. With the defaults it has 113,437,717 parameters, 113,429,013 of them trainable.

    On tiles of 128 pixels the stages have 32, 16, 8 and 4 tokens a side. Windows of 8 tokens are clamped to them: stages three and four
    are one window each, of 8 x 8 and of 4 x 4 tokens, and not shifted. timm's network that is built for the pretraining's 256 pixels does
    not clamp where it is given 128: every other block of stage three is shifted by 4 tokens, which divides the one window into four, and
    stage four is padded to 8 x 8 with zeros that take part in the attention. So its features differ there; on 256 pixels they are equal.

    Raises:
        ValueError: If a name is unknown, a value out of range, or groups and bands do not fit together.

    Reference:
        Kabir et al., "DualSwinFusionSeg", PBVS 2026. Two SwinV2-S, concatenation and UNet++ are the submitted network; the other fusions
        and decoders are those of its ablations.

    Example:
        >>> from marsls_keras.models import build_model
        >>> tiny = {"embed_dim": 8, "depths": [1, 1, 1, 1], "heads": [1, 2, 4, 8]}
        >>> build_model("dual_swin", encoder_options=tiny, decoder_channels=8).output_shape
        (None, None, None, 1)
    """
    _require(bands, groups, fusion, decoder, decoder_channels, dropout)
    inputs = keras.Input((None, None, len(bands)), name="image")
    pyramids = []
    for group, members in groups.items():
        places = [bands.index(band) for band in members]
        pyramids.append(build_encoder(encoder, len(places), group, **encoder_options)(ops.take(inputs, places, axis=-1)))
    stacks = [[pyramid[level] for level in LEVELS] for pyramid in pyramids]  # (B, H / 2^n, W / 2^n, C_n), finest first
    if fusion == LATE and len(stacks) > 1:
        names = [f"decoder_{group}" for group in groups]
    else:
        names = ["decoder"]
        if len(stacks) > 1:
            stacks = [[FUSIONS[fusion](maps, f"fusion_{level}") for level, *maps in zip(LEVELS, *stacks, strict=True)]]
    logits = []
    for name, maps in zip(names, stacks, strict=True):
        x = DECODERS[decoder](maps, decoder_channels, name)  # (B, H/4, W/4, C)
        x = layers.Dropout(dropout, name=f"{name}_dropout")(x)
        # From here on float32 whatever the policy, so that logits keep their precision under mixed precision.
        logits.append(layers.Conv2D(1, 1, dtype="float32", name=f"{name}_logits")(x))  # (B, H/4, W/4, 1)
    x = Blend(dtype="float32", name="blend")(logits) if len(logits) > 1 else logits[0]
    return keras.Model(inputs, ResizeLike(dtype="float32", name="logits")(x, inputs), name="dual_swin")  # (B, H, W, 1)


def _require(
    bands: Sequence[str], groups: Mapping[str, Sequence[str]], fusion: str, decoder: str, decoder_channels: int, dropout: float
) -> None:
    """Refuse arguments that are out of range or do not fit together.

    Raises:
        ValueError: If one is.
    """
    for option, value, known in (("fusion", fusion, [*FUSIONS, LATE]), ("decoder", decoder, DECODERS)):
        if value not in known:
            raise ValueError(f"{option} must be one of {', '.join(known)}. Received: {value!r}")
    if decoder_channels < 1 or not 0 <= dropout < 1:
        raise ValueError(
            "dual_swin needs decoder_channels of at least 1 and dropout in [0, 1). "
            f"Received: decoder_channels={decoder_channels}, dropout={dropout}"
        )
    listed = all(isinstance(members, list | tuple) and members for members in groups.values())
    if not groups or not listed or not all(isinstance(name, str) and re.fullmatch("[A-Za-z0-9_]+", name) for name in groups):
        raise ValueError(
            "groups must be one or more names of letters, digits and _, each with a list of bands, such as {rgb: [red, green, blue]}. "
            f"Received: {groups}"
        )
    named = [band for members in groups.values() for band in members]
    troubles = {
        "names bands that are not among the input": [band for band in named if band not in bands],
        "names bands more than once": [band for band in dict.fromkeys(named) if named.count(band) > 1],
        "leaves out input bands": [band for band in bands if band not in named],
    }
    if found := [f"{what}: {', '.join(map(str, which))}" for what, which in troubles.items() if which]:
        raise ValueError(
            f"groups {'; '.join(found)}. The input bands are {', '.join(bands)} (data.bands). "
            f"Received: { ({name: list(members) for name, members in groups.items()}) }"
        )
