"""All layers: configuration, symbolic and compiled calls, training, mixed precision.

The values that each layer computes are tested in its own file.
"""

import pytest
from helpers import layer_case
from helpers.layer_case import HALF, LayerCase

from marsls_keras import layers

MAPS = ((2, 4, 12, 6),)
TOKENS = ((2, 8, 6),)
SAME = MAPS[0]
# What changes nothing: a bias of keys, which the softmax takes away, and one before a normalisation with the batch's
# own statistics.
KEYS = ("key/bias",)
NORMALISED = tuple(f"{name}/bias" for name in ("conv1", "conv3", "conv5", "merge", "shortcut"))

BLOCK = {"heads": 2, "drop_path": 0.25, "epsilon": 1e-5, "layer_scale": 0.3}

CASES = [
    LayerCase(layers.AdaptivePooling, {"bins": 3}, MAPS, (2, 3, 3, 6)),
    LayerCase(layers.BatchNormalization, {"momentum": 0.7, "epsilon": 1e-2}, MAPS, SAME),
    LayerCase(layers.BiasedWindowAttention, {"heads": 2, "window": 5, "shift": 2}, MAPS, SAME),
    LayerCase(layers.Blend, {}, ([SAME, SAME, SAME],), SAME),
    LayerCase(layers.CBAM, {"reduction": 3, "kernel_size": 5}, MAPS, SAME),
    LayerCase(layers.ChannelMean, {}, MAPS, (2, 4, 12, 1)),
    LayerCase(layers.ConvNeXtBlock, {"response": True, "drop_path": 0.2, "scale": 0.1}, MAPS, SAME),
    LayerCase(layers.DimensionAttention, {"width": 8, "heads": 2, "key_dim": 3}, MAPS, SAME, KEYS),
    LayerCase(layers.DropPath, {"rate": 0.3, "seed": 7}, ((8, 4, 12, 6),), (8, 4, 12, 6)),
    LayerCase(layers.EfficientChannelAttention, {"kernel_size": 5}, MAPS, SAME),
    LayerCase(layers.Gate, {}, ([SAME, SAME],), SAME),
    LayerCase(layers.GlobalResponseNormalization, {}, MAPS, SAME),
    LayerCase(layers.LearnableAffine, {}, MAPS, SAME),
    LayerCase(layers.MeanProbability, {}, ([(2, 2, 6, 1), (2, 8, 12, 1)], (2, 4, 12, 3)), (2, 4, 12, 1)),
    LayerCase(
        layers.MixTransformerBlock, {"heads": 2, "reduction": 2, "mlp_ratio": 3, "drop_path": 0.25}, MAPS, SAME, KEYS
    ),
    LayerCase(layers.PatchExpanding, {"factor": 2, "channels": 5}, MAPS, (2, 8, 24, 5)),
    LayerCase(layers.PatchMerging, {"channels": 5}, ((2, 3, 12, 6),), (2, 2, 6, 5)),
    LayerCase(
        layers.PenAttention,
        {
            "filters": 6,
            "kernel_size": 3,
            "expansion_terms": 3,
            "layout": "pooled",
            "conv_pe": False,
            "mhsa": False,
            "l2": 0.5,
        },
        MAPS,
        SAME,
        NORMALISED,
    ),
    LayerCase(layers.PositionEmbedding, {"grid": 3}, MAPS, SAME),
    LayerCase(layers.PositionedTokens, {"grid": 3, "registers": 2, "antialias": True}, MAPS, (2, 51, 6)),
    LayerCase(layers.PrefixedTokens, {"registers": 2}, MAPS, (2, 51, 6)),
    LayerCase(layers.ProgressiveExpansion, {"terms": 3}, MAPS, (2, 4, 12, 18)),
    LayerCase(layers.ReducedAttention, {"heads": 2, "reduction": 2}, MAPS, SAME, KEYS),
    LayerCase(layers.ResConv, {"filters": 5, "slope": 0.1}, MAPS, (2, 4, 12, 5), NORMALISED),
    LayerCase(layers.ResizeLike, {"align_corners": True}, (SAME, (2, 8, 10, 3)), (2, 8, 10, 6)),
    LayerCase(layers.RotaryAttention, {"heads": 2}, ([(2, 50, 8), (2, 4, 12, 3)],), (2, 50, 8)),
    LayerCase(layers.RotaryBlock, BLOCK, ([(2, 50, 8), (2, 4, 12, 3)],), (2, 50, 8)),
    LayerCase(layers.SpatialAttention, {"num_heads": 3, "key_dim": 5, "layout": "columns"}, MAPS, SAME),
    LayerCase(layers.SqueezeExcitation, {"reduction": 2}, MAPS, SAME),
    LayerCase(layers.StandardizedConv2D, {"filters": 5, "kernel_size": (3, 3)}, MAPS, (2, 2, 10, 5)),
    LayerCase(layers.SwinBlock, {"heads": 2, "window": 5, "shift": 2, "mlp_ratio": 3, "drop_path": 0.25}, MAPS, SAME),
    LayerCase(layers.SwinV2Block, {"heads": 2, "window": 5, "shift": 2, "mlp_ratio": 3, "drop_path": 0.25}, MAPS, SAME),
    LayerCase(layers.TokensToMap, {}, ([(2, 49, 6), (2, 4, 12, 3)],), SAME),
    LayerCase(layers.UpsampleBilinear, {}, MAPS, (2, 8, 24, 6)),
    LayerCase(layers.TransformerBlock, BLOCK, TOKENS, TOKENS[0], KEYS),
    LayerCase(layers.WindowAttention, {"heads": 2, "window": 5, "shift": 2}, MAPS, SAME),
]
EVERY = pytest.mark.parametrize("case", CASES, ids=str)


def test_no_layer_is_left_out():
    assert {case.kind for case in CASES} == {getattr(layers, name) for name in layers.__all__}


@EVERY
def test_configuration(case):
    layer_case.check_configuration(case)


@EVERY
def test_calls(case):
    layer_case.check_calls(case)


@EVERY
def test_training(case):
    layer_case.check_training(case)


@pytest.mark.parametrize("policy", HALF)
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.kind is not layers.MeanProbability], ids=str
)  # always in float32
def test_half_precision(case, policy):
    layer_case.check_half_precision(case, policy)
