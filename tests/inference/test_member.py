"""Predictions of a fold against its network called directly in each view."""

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tifffile
from helpers.training import train_run

from marsls_keras.errors import InputError
from marsls_keras.inference.member import load_member, predict_views, sigmoid
from marsls_keras.models import build_model
from marsls_keras.runs.run import Run
from marsls_keras.view_sets import VIEWS

# Every view and what undoes it, by flips and transpositions of the axes 1 and 2.
BY_HAND = {
    "identity": (lambda x: x, lambda x: x),
    "horizontal_flip": (lambda x: x[:, :, ::-1], lambda x: x[:, :, ::-1]),
    "vertical_flip": (lambda x: x[:, ::-1], lambda x: x[:, ::-1]),
    "rot180": (lambda x: x[:, ::-1, ::-1], lambda x: x[:, ::-1, ::-1]),
    "transpose": (lambda x: x.swapaxes(1, 2), lambda x: x.swapaxes(1, 2)),
    "antitranspose": (lambda x: x[:, ::-1, ::-1].swapaxes(1, 2), lambda x: x.swapaxes(1, 2)[:, ::-1, ::-1]),
    "rot90": (lambda x: x.swapaxes(1, 2)[:, ::-1], lambda x: x[:, ::-1].swapaxes(1, 2)),
    "rot270": (lambda x: x.swapaxes(1, 2)[:, :, ::-1], lambda x: x[:, :, ::-1].swapaxes(1, 2)),
}

CLOSE = 1e-5  # float32 through a dozen convolutions, in another order of summation


def tiles(number: int, height: int = 32, width: int = 32) -> np.ndarray:
    return np.random.default_rng(number).uniform(0, 1, (number, height, width, 7)).astype(np.float32)


@cache
def network(weights: Path) -> keras.Model:
    model = build_model("unet", bands=7, base_filters=4, depth=1)
    model.load_weights(weights)
    return model


def by_hand(run: Run, fold: int, images: np.ndarray, view: str) -> np.ndarray:
    """Return probabilities in float64 from the fold's files, without the code under test."""
    folder = run.path / f"fold_{fold}"
    statistics = json.loads((folder / "normalization.json").read_text())
    model = network(folder / "best.weights.h5")
    turn, turn_back = BY_HAND[view]
    x = ((images - np.array(statistics["mean"])) / np.array(statistics["std"])).astype(np.float32)
    logits = np.asarray(model(turn(x), training=False))[..., 0].astype(np.float64)
    return turn_back(1 / (1 + np.exp(-logits)))


@pytest.fixture(scope="module")
def run(tiny_run) -> Run:
    return Run.open(tiny_run.path)


@pytest.fixture(scope="module")
def member(run):
    return load_member(run, 0)


def test_all_views_equal_the_network_called_by_hand(run, member):
    assert tuple(sorted(BY_HAND)) == tuple(sorted(VIEWS))
    images = tiles(7)  # in batches of 4, so the last one is not full
    expected = {view: by_hand(run, 0, images, view) for view in VIEWS}
    found = dict(zip(VIEWS, predict_views(member, images, VIEWS), strict=True))
    for view in VIEWS:
        assert found[view].probability.dtype == np.float32 and found[view].probability.shape == (7, 32, 32)
        assert np.abs(found[view].probability - expected[view]).max() < CLOSE, view
    # The network is no symmetric one, so that a wrong view would have been seen.
    assert min(np.abs(expected[a] - expected[b]).max() for a in VIEWS for b in VIEWS if a < b) > 1e-3


@pytest.mark.parametrize("number", [1, 4, 5])
def test_any_number_of_tiles(run, member, number):
    (found,) = predict_views(member, tiles(number), ["rot90"])
    assert found.probability.shape == (number, 32, 32)
    assert np.abs(found.probability - by_hand(run, 0, tiles(number), "rot90")).max() < CLOSE


def test_tiles_of_another_size_that_are_not_square(run, member):
    images = tiles(3, 20, 44)
    for view, found in zip(
        ("rot90", "transpose", "vertical_flip"),
        predict_views(member, images, ("rot90", "transpose", "vertical_flip")),
        strict=True,
    ):
        assert found.probability.shape == (3, 20, 44)
        assert np.abs(found.probability - by_hand(run, 0, images, view)).max() < CLOSE


@pytest.mark.parametrize("height,width", [(31, 32), (32, 33)])
def test_sizes_the_network_cannot_take_are_refused(member, height, width):
    with pytest.raises(
        InputError, match=f"unet needs height and width divisible by 2; the tiles or windows are {height} x {width}"
    ):
        next(predict_views(member, tiles(1, height, width), ["identity"]))


def test_each_fold_has_its_own_weights_and_statistics(run, member):
    other = load_member(run, 1)
    assert (member.fold, other.fold) == (0, 1) and member.normalizer != other.normalizer
    (found,) = predict_views(other, tiles(2), ["identity"])
    assert np.abs(found.probability - by_hand(run, 1, tiles(2), "identity")).max() < CLOSE
    assert np.abs(found.probability - by_hand(run, 0, tiles(2), "identity")).max() > 1e-3


def test_bands_are_taken_by_name(tiny_run, tmp_path):
    """A run on three bands in another order gets exactly these, in its order."""
    settings = ["data.bands=[slope, red, dem]", "data.cv=official", "training.epochs=1", "training.deterministic=false"]
    run, _ = train_run(tiny_run.recipe, tiny_run.data, tmp_path / "few", settings)
    images = tiles(2)
    statistics = json.loads((run.path / "fold_0" / "normalization.json").read_text())
    pool = np.stack([tifffile.imread(path) for path in sorted((tiny_run.data / "train" / "images").iterdir())])[
        ..., [4, 0, 3]
    ]
    assert statistics["mean"] == pytest.approx(pool.mean((0, 1, 2), dtype=np.float64), rel=1e-6)
    model = build_model("unet", bands=3, base_filters=4, depth=1)
    model.load_weights(run.path / "fold_0" / "best.weights.h5")
    x = (images[..., [4, 0, 3]] - np.array(statistics["mean"])) / np.array(statistics["std"])
    logits = np.asarray(model(x.astype(np.float32), training=False))[..., 0].astype(np.float64)
    (found,) = predict_views(load_member(run, 0), images, ["identity"])
    assert np.abs(found.probability - 1 / (1 + np.exp(-logits))).max() < CLOSE


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_weights_with_one_changed_byte_are_refused(tiny_run, tmp_path, place):
    run = Run.open(tiny_run.copy(tmp_path) / tiny_run.name)
    path = run.path / "fold_1" / "best.weights.h5"
    data = bytearray(path.read_bytes())
    data[round(place * (len(data) - 1))] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        InputError,
        match=r"fold 1 has other weights than it was finished with \(.*best\.weights\.h5 is missing or changed",
    ):
        load_member(run, 1)
    assert load_member(run, 0).fold == 0


def test_weights_of_another_network_are_refused(tiny_run, tmp_path):
    """The checksum is right but the variables are not, as after a change of the network's code."""
    run = Run.open(tiny_run.copy(tmp_path) / tiny_run.name)
    for path in (run.path / "config.yaml", run.path / "fold_0" / "config.yaml"):
        path.write_text(path.read_text().replace("base_filters: 4", "base_filters: 3"))
    with pytest.raises(InputError, match="best.weights.h5 does not fit the network of run tiny: "):
        load_member(Run.open(run.path), 0)


def test_a_member_keeps_the_precision_of_its_run(tiny_run, tmp_path):
    run = Run.open(tiny_run.copy(tmp_path) / tiny_run.name)
    for path in (run.path / "config.yaml", run.path / "fold_0" / "config.yaml"):
        path.write_text(path.read_text().replace("precision: float32", "precision: mixed_bfloat16"))
    try:
        member = load_member(Run.open(run.path), 0)
        (found,) = predict_views(member, tiles(2), ["identity"])
    finally:
        keras.config.set_dtype_policy("float32")
    assert member.model.get_layer("bottom_conv1").compute_dtype == "bfloat16" and found.probability.dtype == np.float32
    exact = by_hand(Run.open(tiny_run.path), 0, tiles(2), "identity")
    assert 1e-5 < np.abs(found.probability - exact).max() < 0.05  # bfloat16 has three digits


def test_a_run_that_was_moved_predicts_the_same(tiny_run, tmp_path, member):
    shutil.copytree(tiny_run.path, tmp_path / "elsewhere")
    (found,), (here,) = (
        predict_views(m, tiles(2), ["identity"]) for m in (load_member(Run.open(tmp_path / "elsewhere"), 0), member)
    )
    assert np.array_equal(found.probability, here.probability)


def test_the_sigmoid_is_exact_and_never_overflows():
    logits = np.concatenate(
        [np.linspace(-100, 100, 2001), [-1e4, -88.8, 0, 88.8, 1e4, np.finfo(np.float32).max]]
    ).astype(np.float32)
    with np.errstate(all="raise", under="ignore"):
        found = sigmoid(logits)
    with np.errstate(over="ignore"):
        exact = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert found.dtype == np.float32 and np.abs(found - exact).max() < 1e-7
    assert (sigmoid(np.float32([-100, 0, 100])) == [0, 0.5, 1]).all()
    assert (np.diff(found[:2001]) >= 0).all()
    assert ((found >= 0.5) == (logits >= 0)).all()


class BatchSize(keras.layers.Layer):
    """Layer whose logits are the number of tiles of the step."""

    def call(self, x):
        return 0 * x[..., :1] + tf.cast(tf.shape(x)[0], x.dtype)


def test_no_step_has_more_tiles_than_the_batch_size(member):
    image = keras.Input((None, None, 7))
    (found,) = predict_views(replace(member, model=keras.Model(image, BatchSize()(image))), tiles(11), ["identity"])
    assert member.run.config.inference.batch_size == 4
    np.testing.assert_allclose(found.probability, sigmoid(np.full((11, 32, 32), 4.0)))
