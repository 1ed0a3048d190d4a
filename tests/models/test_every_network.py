"""All networks: gradients, configuration and weights, calls, sizes, one fit, mixed precision.

Parameter counts are tested in the file of each network.
"""

import pytest
from helpers import model_case
from helpers.model_case import ModelCase

from marsls_keras.models import model_names

SWIN = {"embed_dim": 4, "depths": [2, 1, 1, 1], "heads": [1, 1, 2, 2], "window": 4, "drop_path": 0.0}
# Biases of convolutions before a normalisation with the batch's own statistics, and of keys, which the softmax takes
# away.
DEAD = ("branches/bias", "merge/bias", "shortcut/bias", "conv1/bias", "conv3/bias", "conv5/bias", "key/bias")
# Those of all convolutions before a normalisation.
BIASES = ("conv/bias", "shortcut/bias")
RESNET = {"encoder": "resnet18", "encoder_options": {"width": 4}}


def dilated(stride):
    return {"encoder": "resnet18", "encoder_options": {"width": 4, "output_stride": stride}, "decoder_channels": 8}


CASES = [
    ModelCase("unet", {"base_filters": 4, "depth": 2, "dropout": 0.3}, (16, 12), ((4, 8), (48, 20))),
    ModelCase(
        "mars_ls_net", {"filters": 4, "kernel_size": 3, "levels": 2}, (16, 12), ((9, 14), (3, 5), (32, 20)), DEAD
    ),
    ModelCase(
        "rmau_net",
        {"filters": 2, "poolings": 2, "tile_size": 16, "detection": True, "head": "conv"},
        (16, 16),
        ((24, 12), (4, 8), (16, 48)),
        DEAD,
    ),
    ModelCase(
        "dual_swin",
        {"encoder_options": SWIN, "decoder": "segformer_mlp", "decoder_channels": 4},
        (64, 64),
        ((32, 96), (96, 160)),
    ),
    ModelCase("attention_unet", {"base_filters": 4, "depth": 2, "dropout": 0.1}, (16, 12), ((4, 8), (48, 20)), BIASES),
    ModelCase("r2_unet", {"base_filters": 4, "depth": 2, "dropout": 0.1}, (16, 12), ((4, 8), (48, 20)), BIASES),
    ModelCase("res_unet", {"base_filters": 4, "depth": 2, "dropout": 0.1}, (16, 12), ((4, 8), (48, 20)), BIASES),
    ModelCase("deeplab_v3", dilated(8), (64, 64), ((32, 96),)),
    ModelCase("deeplab_v3_plus", dilated(16), (64, 64), ((32, 96),)),
    ModelCase("pspnet", {**RESNET, "encoder_options": {"width": 8}, "decoder_channels": 8}, (64, 64), ((32, 96),)),
    ModelCase(
        "rmau_backbone",
        {**dilated(8), "decoder": "deeplabv3", "filters": 4, "detection": True, "head": "conv"},
        (64, 64),
        ((32, 96),),
    ),
    ModelCase("unet_plus_plus", {**RESNET, "decoder_channels": 32, "dropout": 0.1}, (64, 64), ((32, 96),)),
    ModelCase(
        "mmsformer",
        {"encoders": {"rgb": "mit_thin", "aux": "mit_thin"}, "decoder_channels": 4, "drop_path": 0.0},
        (64, 64),
        ((32, 96),),
        (*DEAD, "pointwise/bias"),
    ),
    ModelCase(
        "segformer", {"encoder": "mit_thin", "decoder_channels": 8, "drop_path": 0.0}, (64, 64), ((32, 96),), DEAD
    ),
    ModelCase("segmenter", {"decoder_channels": 8, "dropout": 0.1}, (64, 64), ((32, 96),)),
    ModelCase("swin_fpn", {"encoder_options": SWIN, "decoder_channels": 4, "dropout": 0.0}, (32, 64), ((96, 32),)),
    ModelCase(
        "swin_unet",
        {**SWIN, "depths": [1, 2, 1, 1], "tile_size": 64},  # its smallest windows have four tokens
        (32, 64),
        ((96, 32),),
    ),
    ModelCase(
        "trans_unet",
        {
            **{"width": 4, "units": [1, 1, 1], "embed_dim": 8, "depth": 2, "heads": 2, "grid": 2, "dropout": 0.0},
            "decoder_channels": [8, 6, 4, 4],
        },
        (32, 32),
        ((64, 48),),
        DEAD,
    ),
]


@pytest.fixture(scope="module", autouse=True)
def mit_thin():
    with model_case.thin_mit():
        yield


SETTINGS = ("segformer", "swin_fpn")
"""Networks that are settings of the segmenter, whose parts others check as well: slow tests check them."""

EVERY = pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if case.name in SETTINGS else ()) for case in CASES], ids=str
)

BASELINES = (
    *("attention_unet", "deeplab_v3", "deeplab_v3_plus", "mmsformer", "pspnet", "r2_unet", "rmau_backbone"),
    *("swin_unet", "trans_unet", "unet_plus_plus"),
)
"""Networks of the same parts as others: the default suite checks their gradients, sizes and logits only."""


def but(*names):
    """Return a decorator that runs a test for every case, as a slow test for these networks and the baselines."""
    dear = {*names, *BASELINES, *SETTINGS}
    cases = [pytest.param(case, marks=pytest.mark.slow if case.name in dear else ()) for case in CASES]
    return pytest.mark.parametrize("case", cases, ids=str)


@pytest.fixture(scope="module")
def built():
    """Return a function that builds the network of a case once; tests change only its loss and moving statistics."""
    found = {}
    return lambda case: found[case.name] if case.name in found else found.setdefault(case.name, case.build())


def test_no_network_is_left_out():
    assert sorted(case.name for case in CASES) == model_names()


@EVERY
def test_a_gradient_reaches_every_trainable_variable(case, built):
    model_case.check_gradient(case, built(case))


@but()
def test_configuration_and_weights(case, built, tmp_path):
    model_case.check_round_trip(case, built(case), tmp_path)


@but("segmenter")
def test_calls(case, built):
    model_case.check_calls(case, built(case))


@EVERY
def test_sizes(case, built):
    model_case.check_sizes(case, built(case))


@but()
def test_one_fit(case):
    model_case.check_fit(case)


@but()
@pytest.mark.parametrize("policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)])
def test_half_precision(case, built, policy):
    model_case.check_half_precision(case, built(case), policy)
