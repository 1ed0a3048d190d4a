"""Suggestions for misspelt names of each kind."""

import pytest

from marsls_keras.config import PRESETS, Data, Training, load_config, parse_config, recipes
from marsls_keras.datasets import known_bands
from marsls_keras.errors import InputError
from marsls_keras.losses import LOSSES, read_loss
from marsls_keras.models import model_names, require_options, require_size
from marsls_keras.suggestions import did_you_mean, nearest_name
from marsls_keras.view_sets import VIEW_SETS, views_of


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("lr", Training.model_fields, "learning_rate"),
        ("wd", Training.model_fields, "weight_decay"),
        ("bs", Training.model_fields, "batch_size"),
        ("warmup", Training.model_fields, "warmup_epochs"),
        ("Epochs", Training.model_fields, "epochs"),
        ("batchsize", Training.model_fields, "batch_size"),
        ("view", ("batch_size", "view_sets"), "view_sets"),
        ("band", Data.model_fields, "bands"),
        ("elevation", known_bands(), "dem"),
        ("DTM", known_bands(), "dem"),
        ("temperature", known_bands(), "thermal"),
        ("thermal-inertia", known_bands(), "thermal"),
        ("grey", known_bands(), "gray"),
        ("temperature", ("red", "green", "blue"), None),  # a word for something that is not among the known
        ("defualt", recipes(), "default"),
        ("U-Net", model_names(), "unet"),
        ("rmaunet", model_names(), "rmau_net"),
        ("jaccard", LOSSES, "iou"),
        ("flip", VIEW_SETS, "flips"),
        ("stong", PRESETS, "strong"),
        ("s", ("size", "scale"), None),
        ("zzz", Training.model_fields, None),
    ],
)
def test_the_nearest_name(name, known, expected):
    assert nearest_name(name, known) == expected
    assert did_you_mean(name, known) == (f" Did you mean {expected}?" if expected else "")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: parse_config({"training": {"lr": 1}}, "x"), "unknown key training.lr, did you mean learning_rate?"),
        (
            lambda: parse_config({"learning_rate": 1}, "x"),
            "unknown key learning_rate, did you mean training.learning_rate?",
        ),
        (
            lambda: parse_config({"data": {"bands": ["red", "elevation"]}}, "x"),
            "elevation is unknown. Did you mean dem? Received",
        ),
        (
            lambda: parse_config({"data": {"bands": ["temperature"]}}, "x"),
            "temperature is unknown. Did you mean thermal? Received",
        ),
        (lambda: parse_config({"augmentation": {"preset": "stong"}}, "x"), "no preset 'stong'; known: none"),
        (lambda: parse_config({"augmentation": {"preset": "stong"}}, "x"), "Did you mean strong? Received"),
        (lambda: parse_config({"training": {"optimizer": "adamW"}}, "x"), "Did you mean adamw? Received: 'adamW'"),
        (lambda: parse_config({"training": {"schedule": {"name": "cosin"}}}, "x"), "Did you mean cosine?"),
        (lambda: load_config("defualt"), "There is no configuration 'defualt'. Did you mean default? Give"),
        (
            lambda: load_config("segmenter"),
            "There is no configuration 'segmenter'. If segmenter is a network, "
            "choose it with --set model.name=segmenter. Give",
        ),
        (lambda: read_loss({"jaccard": 1}), "loss: unknown jaccard. Did you mean iou? Known"),
        (lambda: read_loss({"focal": {"gama": 1}}), "Did you mean gamma? It has"),
        (lambda: views_of("flip"), "There is no set of views 'flip'. Did you mean flips? Known"),
        (lambda: require_options("u-net", {}), "There is no model 'u-net'. Did you mean unet? Known"),
        (
            lambda: require_options("unet", {"drop_out": 0.1}),
            "unet has no option drop_out. Did you mean dropout? It has",
        ),
        (
            lambda: require_options("dual_swin", {"encoder": "swin_v2_larg"}),
            "encoder must be one of swin_v2_tiny, swin_v2_small",
        ),
        (lambda: require_options("dual_swin", {"decoder": "unet++"}), "Did you mean unetplusplus? Received: 'unet++'"),
        (lambda: require_size("unet", {}, 100, 100), "data.resize brings tiles to another size: --set data.resize=96"),
        (lambda: require_size("unet", {"depth": 6}, 32, 32), "--set data.resize=64"),
    ],
)
def test_where_names_are_looked_up_the_nearest_is_suggested(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert message in str(caught.value)


def test_the_size_that_is_suggested_is_one_that_the_network_takes():
    for side in (17, 31, 33, 100, 127, 130, 250):
        with pytest.raises(InputError) as caught:
            require_size("dual_swin", {}, side, side)
        better = int(str(caught.value).rpartition("=")[2])
        require_size("dual_swin", {}, better, better)
        assert abs(better - side) <= 16 and better >= 16
