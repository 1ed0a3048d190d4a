"""Members fitted to the images they predict: statistics computed by hand, and what the commands say of it."""

import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tifffile

from competition.cli import main
from marsls_keras.data.normalization import Normalizer
from marsls_keras.errors import InputError
from marsls_keras.inference.align import align
from marsls_keras.inference.member import Member, load_member, predict_views
from marsls_keras.runs.run import Run
from marsls_keras.training.train_fold import fold_tiles


@pytest.fixture(scope="module")
def run(tiny_run) -> Run:
    return Run.open(tiny_run.path)


@pytest.fixture(scope="module")
def train_tiles(run):
    """The tiles that fold 0 was trained on."""
    from marsls_keras.tuning.out_of_fold import pool_tiles

    return fold_tiles(run, 0, pool_tiles(run))[0]


def probability(member: Member, images: np.ndarray) -> np.ndarray:
    return next(predict_views(member, images, ["identity"])).probability


def test_statistics_are_those_of_the_images(run, train_tiles):
    member = load_member(run, 0)
    some = train_tiles.subset([0, 2, 3])
    found = align(member, some, "statistics").normalizer
    assert np.allclose(found.mean, some.images.mean(axis=(0, 1, 2), dtype=np.float64))
    assert np.allclose(found.std, some.images.std(axis=(0, 1, 2), dtype=np.float64))
    assert (found.bands, found.percentiles) == (member.normalizer.bands, member.normalizer.percentiles)
    assert not np.allclose(found.mean, member.normalizer.mean, atol=1e-4)


def test_tiles_of_another_brightness_and_contrast_are_predicted_as_those_of_training(run, train_tiles):
    """With their own statistics, the fold's training tiles, changed alike, are the same network input as they were."""
    member = load_member(run, 0)
    changed = replace(train_tiles, images=train_tiles.images * np.float32(0.8) + np.float32(0.1))
    expected = probability(member, train_tiles.images)
    assert np.abs(probability(member, changed.images) - expected).max() > 0.01
    assert np.abs(probability(align(member, changed, "statistics"), changed.images) - expected).max() < 1e-4


def chain() -> keras.Model:
    image = keras.Input((None, None, 7))
    x = keras.layers.Dropout(0.5)(image)
    x = keras.layers.BatchNormalization(name="first", momentum=0.9, center=False, scale=False)(x)
    x = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer=keras.initializers.RandomNormal(seed=1), name="mix")(x)
    return keras.Model(image, keras.layers.BatchNormalization(name="second", momentum=0.9)(x))


def test_moving_statistics_are_those_of_the_activations(run, train_tiles):
    """By NumPy: of batches of 4, 4 and 1 tiles, each weighted by its tiles; the second layer sees what the first gives for the batch."""
    tiles = train_tiles.subset(range(9))
    member = replace(load_member(run, 0), model=chain())
    kernel = keras.ops.convert_to_numpy(member.model.get_layer("mix").kernel)[0, 0].astype(np.float64)  # (7, 1)
    epsilon = member.model.get_layer("first").epsilon
    inputs = member.normalizer.apply(tiles.images).astype(np.float64)
    expected = {"first": [], "second": []}
    for part in (inputs[:4], inputs[4:8], inputs[8:]):
        mean, variance = part.mean((0, 1, 2)), part.var((0, 1, 2))
        mixed = (part - mean) / np.sqrt(variance + epsilon) @ kernel
        expected["first"].append((mean, variance))
        expected["second"].append((mixed.mean((0, 1, 2)), mixed.var((0, 1, 2))))
    assert run.config.inference.batch_size == 4
    assert align(member, tiles, "batchnorm").model is member.model
    for name, values in expected.items():
        layer = member.model.get_layer(name)
        for i, variable in enumerate((layer.moving_mean, layer.moving_variance)):
            mean = np.average([value[i] for value in values], axis=0, weights=[4, 4, 1])
            assert np.allclose(keras.ops.convert_to_numpy(variable), mean, atol=2e-5), (name, i)
        assert layer.momentum == 0.9
    assert [layer.rate for layer in member.model.layers if isinstance(layer, keras.layers.Dropout)] == [0.5]


def test_batchnorm_changes_predictions_and_no_weights(run, train_tiles):
    member = load_member(run, 0)
    changed = replace(train_tiles, images=train_tiles.images * np.float32(0.8) + np.float32(0.1))
    before, weights = probability(member, changed.images), [keras.ops.convert_to_numpy(v) for v in member.model.trainable_variables]
    after = probability(align(member, changed, "batchnorm"), changed.images)
    assert np.abs(after - before).max() > 0.01
    assert all(np.array_equal(w, keras.ops.convert_to_numpy(v)) for w, v in zip(weights, member.model.trainable_variables, strict=True))


def test_what_there_is_not_cannot_be_fitted(run, train_tiles):
    member = load_member(run, 0)
    plain = replace(member, normalizer=Normalizer(member.normalizer.bands, (1, 99), None, None))
    with pytest.raises(InputError, match="zscore false"):
        align(plain, train_tiles, "statistics")
    image = keras.Input((None, None, 7))
    with pytest.raises(InputError, match="no batch normalisation"):
        align(replace(member, model=keras.Model(image, keras.layers.Conv2D(1, 1)(image))), train_tiles, "batchnorm")
    with pytest.raises(ValueError, match="Received: both"):
        align(member, train_tiles, "both")


@pytest.mark.parametrize("how", ["statistics", "batchnorm"])
def test_commands_predict_as_the_fitted_member_and_say_so(tiny_run, run, tmp_path, capsys, how):
    from marsls_keras.data.decoded.load import load
    from marsls_keras.data.index.dataset import Dataset

    images = tiny_run.data / "test" / "images"
    options = ["--runs", str(tiny_run.runs), "--images", str(images), "--folds", "1", "--json"]
    assert main(["predict", "tiny", "--out", str(tmp_path / "out"), *options, "--align", how]) == 0
    found = json.loads(capsys.readouterr().out)["alignment"]
    assert (found["method"], found["tiles"]) == (how, 4) and "transductive" in found["note"]
    tiles = load(Dataset.from_images(images))
    expected = probability(align(load_member(run, 1), tiles, how), tiles.images)
    written = np.stack([tifffile.imread(tmp_path / "out" / "probability" / f"{ref.image.stem}.tif") for ref in tiles.refs])
    assert np.abs(written - expected).max() < 1e-6
    assert np.abs(written - probability(load_member(run, 1), tiles.images)).max() > 1e-4
    zips = [tmp_path / "plain.zip", tmp_path / "aligned.zip"]
    assert main(["submit", "--run", "tiny", "--out", str(zips[0]), *options]) == 0
    assert main(["submit", "--run", "tiny", "--out", str(zips[1]), *options, "--align", how]) == 0
    plain, aligned = (json.loads(Path(path).with_suffix(".json").read_text()) for path in zips)
    assert plain["alignment"] is None and aligned["alignment"] == found
