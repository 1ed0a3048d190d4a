"""MMSFormer: a MiT encoder for each group of bands, fusion by multi-scale convolutions, and SegFormer's decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import layers

from marsls_keras.layers import BatchNormalization, ResizeLike
from marsls_keras.models.band_groups import bands_of, require_groups
from marsls_keras.models.decoders.segformer_mlp import segformer_mlp
from marsls_keras.models.dual_swin import PAPER_GROUPS
from marsls_keras.models.encoders import build_encoder
from marsls_keras.models.encoders.mit import MIT
from marsls_keras.models.pyramid import LEVELS

_KERNELS = (3, 5, 7)
"""Sides of the parallel depthwise convolutions of the fusion."""


def mmsformer(
    bands: Sequence[str],
    *,
    groups: Mapping[str, Sequence[str]] = PAPER_GROUPS,
    encoders: Mapping[str, str] = {"rgb": "mit_b2", "aux": "mit_b1"},  # noqa: B006 - never changed
    decoder_channels: int = 512,
    dropout: float = 0.1,
    drop_path: float = 0.1,
) -> keras.Model:
    """Build MMSFormer: a MiT for each group of bands, fusion at every scale, and SegFormer's decoder.

    The fusion of n maps of C channels is a linear layer of their concatenation to C channels, x, and the sum of two
    branches of x: a mixing branch, which is linear, the sum of x and its depthwise convolutions 3 x 3, 5 x 5 and 7 x 7,
    1 x 1 convolution - BatchNorm - GELU, linear; and squeeze-and-excitation.

    Args:
        bands: Names of the input bands, in the order of the channels.
        groups: Bands by group. Together they must name every input band, each once.
        encoders: MiT of each group, mit_b0 to mit_b5, all with maps of the same channels. The default, B2 and B1, is
            the network of DualSwinFusionSeg's Table 3; that B2 has the colours is a choice made here.
        decoder_channels: Channels C of the decoder; the authors have 512, and 256 above B0 and B1.
        dropout: Dropout rate before the last convolution, in [0, 1).
        drop_path: Rate of stochastic depth at each encoder's last block, in [0, 1).

    Returns:
        A functional model from float (B, H, W, bands) to float32 logits (B, H, W, 1), H and W multiples of 32. The
        logits are computed at stride 4 and resized bilinearly.

    Raises:
        ValueError: If a name is unknown, a value out of range, or groups, encoders and bands do not fit together.

    With the defaults and seven bands it has 40,994,753 trainable parameters. `model.pretrained` is one file for all
    encoders, so that it needs encoders of one size.

    Reference:
        Reza et al., "MMSFormer: Multimodal Transformer for Material and Semantic Segmentation", IEEE OJSP 2024; sizes
        and biases as in the authors' code.

    Example:
        >>> from marsls_keras.models import build_model
        >>> small = {"rgb": "mit_b0", "aux": "mit_b0"}
        >>> build_model("mmsformer", bands=7, encoders=small, decoder_channels=8).output_shape
        (None, None, None, 1)
    """
    require_groups(bands, groups)
    _require(groups, encoders, decoder_channels, dropout)
    inputs = keras.Input((None, None, len(bands)), name="image")
    pyramids = []
    for group, members in groups.items():
        encode = build_encoder(encoders[group], len(members), group, drop_path=drop_path)
        pyramids.append(encode(bands_of(inputs, bands, members)))
    fused = [_fuse([maps[level] for maps in pyramids], f"fusion_{level}") for level in LEVELS]
    x = segformer_mlp(fused, decoder_channels, "decoder")
    if dropout:
        x = layers.Dropout(dropout, name="decoder_dropout")(x)
    x = layers.Conv2D(1, 1, dtype="float32", name="decoder_logits")(x)
    x = ResizeLike(dtype="float32", name="logits")(x, inputs)
    return keras.Model(inputs, x, name="mmsformer")  # (B, H, W, 1)


def _fuse(maps: Sequence[Any], name: str) -> Any:
    """Fuse n maps (B, h, w, C) to one by multi-scale convolutions and channel attention."""
    channels = maps[0].shape[-1]

    def linear(x: Any, part: str) -> Any:
        return layers.Conv2D(channels, 1, kernel_initializer="he_normal", name=f"{name}_{part}")(x)

    x = linear(layers.Concatenate(name=f"{name}_concat")(list(maps)) if len(maps) > 1 else maps[0], "linear")
    y = linear(x, "mix_in")
    scales = [
        layers.DepthwiseConv2D(k, padding="same", depthwise_initializer="he_normal", name=f"{name}_depthwise{k}")(y)
        for k in _KERNELS
    ]
    y = linear(layers.Add(name=f"{name}_scales")([y, *scales]), "pointwise")
    y = keras.ops.gelu(BatchNormalization(momentum=0.9, name=f"{name}_bn")(y), approximate=False)
    y = linear(y, "mix_out")
    # Without biases, unlike `SqueezeExcitation`.
    weight = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)
    for part, units, activation in (("squeeze", max(1, channels // 16), "relu"), ("excite", channels, "sigmoid")):
        weight = layers.Dense(units, activation, use_bias=False, kernel_initializer="he_normal", name=f"{name}_{part}")(
            weight
        )
    return layers.Add(name=f"{name}_sum")([y, layers.Multiply(name=f"{name}_attention")([x, weight])])


def _require(
    groups: Mapping[str, Sequence[str]], encoders: Mapping[str, str], decoder_channels: int, dropout: float
) -> None:
    """Check that every group has a MiT, that their maps fit together, and that numbers are in range.

    Raises:
        ValueError: If a check fails.
    """
    if set(encoders) != set(groups) or not set(encoders.values()) <= set(MIT):
        raise ValueError(
            f"encoders needs one of {', '.join(MIT)} for each of the groups {', '.join(groups)}. "
            f"Received: {dict(encoders)}"
        )
    if len({MIT[name][1] for name in encoders.values()}) > 1:
        raise ValueError(
            "encoders must have maps of the same channels: mit_b0 goes with mit_b0 alone, mit_b1 to mit_b5 fit. "
            f"Received: {dict(encoders)}"
        )
    if decoder_channels < 1 or not 0 <= dropout < 1:
        raise ValueError(
            "decoder_channels must be at least 1 and dropout in [0, 1). "
            f"Received: decoder_channels={decoder_channels}, dropout={dropout}"
        )
