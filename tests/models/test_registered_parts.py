"""An encoder and a decoder from outside the package in its networks, saved and loaded again."""

import keras
import numpy as np
import pytest
from helpers.training import train_run
from keras import layers

from marsls_keras.errors import InputError
from marsls_keras.inference.member import load_member, predict_views
from marsls_keras.models import build_model, encoder_levels, networks
from marsls_keras.models.decoders import DECODERS, register_decoder
from marsls_keras.models.encoders import ENCODERS, build_encoder, register_encoder
from marsls_keras.runs.run import Run

OPTIONS = {"encoder": "test_pool", "decoder": "test_sum", "decoder_channels": 4, "encoder_options": {"width": 3}}


@pytest.fixture
def parts():
    @register_encoder("test_pool", levels=["first", *(f"level{n}" for n in range(2, 6))])
    def pool(x, group="", *, width=2):
        maps = {}
        x = layers.Conv2D(width, 3, 2, padding="same", name=f"first_{group}_conv")(x)
        for n in range(2, 6):
            x = layers.Conv2D(width * n, 3, 2, padding="same", activation="relu", name=f"level{n}_{group}_conv")(x)
            maps[f"P{n}"] = x
        return maps

    @register_decoder("test_sum")
    def add(maps, image, channels, name):
        same = [layers.Conv2D(channels, 1, name=f"{name}_{level}")(x) for level, x in maps.items()]
        up = [layers.UpSampling2D(2**i, name=f"{name}_up{i}")(x) if i else x for i, x in enumerate(same)]
        return layers.Add(name=f"{name}_sum")(up)

    yield pool
    for table in (ENCODERS, DECODERS, *networks.REGISTERED.values()):
        for name in ("test_pool", "test_sum"):
            table.pop(name, None)


def test_they_build_under_segmenter_with_their_options_and_load_again(parts, tmp_path):
    bands, groups = ("red", "green", "dem"), {"rgb": ["red", "green"], "dem": ["dem"]}
    options = {**OPTIONS, "groups": groups}
    model = build_model("segmenter", bands, **options)
    encoder = build_encoder("test_pool", 3, width=3)
    assert encoder.output["P5"].shape[-1] == 15 and len({v.path for v in model.weights}) == len(model.weights)
    assert encoder_levels("segmenter", options) == ["first", "level2", "level3", "level4", "level5"]
    model.save_weights(tmp_path / "w.weights.h5")
    again = build_model("segmenter", bands, **options)
    again.load_weights(tmp_path / "w.weights.h5")
    x = np.random.default_rng(0).normal(0, 1, (2, 64, 96, 3)).astype(np.float32)
    y = model(x)
    assert y.shape == (2, 64, 96, 1) and np.array_equal(again(x), y)
    copy = keras.Model.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    assert np.array_equal(copy(x), y)
    assert (
        build_model("dual_swin", 7, encoder="test_pool", encoder_options={}, decoder_channels=4).output_shape[-1] == 1
    )


def test_wrong_names_and_options_are_answered_as_those_of_the_package(parts):
    with pytest.raises(
        InputError,
        match="encoder must be one of swin_v2_tiny, .*test_pool.*Did you mean test_pool.*Received: 'test_pol'",
    ):
        build_model("segmenter", 3, encoder="test_pol")
    with pytest.raises(InputError, match="test_pool has no depth. It has: width"):
        build_model("segmenter", 3, **{**OPTIONS, "encoder_options": {"depth": 2}})
    with pytest.raises(ValueError, match="There is encoder 'test_pool' already"):
        register_encoder("test_pool", levels=["a"])(parts)
    with pytest.raises(ValueError, match="There is decoder 'unet' already"):
        register_decoder("unet")(lambda maps, image, channels, name: maps["P2"])
    with pytest.raises(ValueError, match="'new' needs levels"):
        register_encoder("new", levels=[])


def test_an_encoder_that_breaks_the_contract_is_refused(parts):
    register_encoder("test_sum", levels=["a"])(lambda x, group="": {"P2": x})
    with pytest.raises(InputError, match=r"test_sum must give maps .*'P5'.*Received"):
        build_model("segmenter", 3, encoder="test_sum")


@pytest.mark.slow
def test_a_run_of_theirs_trains_and_opens(parts, tiny_run, tmp_path):
    settings = ["model.name=segmenter", "model.options={encoder: test_pool, decoder: test_sum, decoder_channels: 4}"]
    settings.append("training.encoder_learning_rate=1e-4")
    train_run(tiny_run.recipe, tiny_run.data, tmp_path / "own", settings)
    run = Run.open(tmp_path / "own")
    member = load_member(run, 0)
    assert {"first__conv", "level5__conv"} <= {layer.name for layer in member.model._flatten_layers()}
    images = np.random.default_rng(0).uniform(0, 1, (2, 32, 32, 7)).astype(np.float32)
    (seen,) = predict_views(member, images, ["identity"])
    assert seen.probability.shape == (2, 32, 32) and np.isfinite(seen.probability).all()
