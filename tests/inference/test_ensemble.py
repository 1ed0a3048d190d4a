"""Ensemble predictions against members averaged by hand, and the handling of tiles that members were trained on."""

import json
import re
import shutil

import numpy as np
import pytest
from helpers.records import edited
from scipy.special import expit, logit

from marsls_keras.data.decoded.load import load
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.errors import InputError
from marsls_keras.inference.ensemble import predict_ensemble, refuse_leaked, tell_leaked
from marsls_keras.inference.member import load_member, predict_views
from marsls_keras.inference.prediction_inputs import PredictionInputs
from marsls_keras.runs.run import Run
from marsls_keras.tuning.out_of_fold import collect, pool_tiles

VIEWS = ["identity", "rot90", "antitranspose"]


@pytest.fixture(scope="module")
def run(tiny_run) -> Run:
    return Run.open(tiny_run.path)


@pytest.fixture(scope="module")
def new_tiles(tiny_run):
    return load(Dataset.from_images(tiny_run.data / "test"))


@pytest.fixture(scope="module")
def each(run, new_tiles) -> np.ndarray:
    """Return the prediction of each fold for the new tiles in each view: (folds, views, N, H, W)."""
    return np.array(
        [[seen.probability for seen in predict_views(load_member(run, k), new_tiles.images, VIEWS)] for k in (0, 1)],
        np.float64,
    )


def test_the_mean_over_folds_and_views(run, new_tiles, each, caplog):
    probability, seen, leaked, *_ = predict_ensemble([run], [0, 1], PredictionInputs.alone(new_tiles), VIEWS)
    assert probability.dtype == np.float32 and seen == 0
    assert np.abs(probability - each.mean((0, 1))).max() < 1e-6
    assert np.abs(each[0] - each[1]).max() > 0.01
    assert caplog.messages == [f"Run tiny, fold {fold}: 4 tiles in 3 view(s) …" for fold in (0, 1)]
    alone, *_ = predict_ensemble([run], [1], PredictionInputs.alone(new_tiles), ["rot90"])
    assert np.abs(alone - each[1, 1]).max() < 1e-6


def test_the_mean_over_runs(run, new_tiles, each, tmp_path):
    """A second run whose folds have other weights: all members have equal weight in the mean."""
    shutil.copytree(run.path, tmp_path / "other")
    for fold in (0, 1):  # what the first run calls fold 0 is fold 1 here
        shutil.rmtree(tmp_path / "other" / f"fold_{fold}")
        shutil.copytree(run.fold_path(1 - fold), tmp_path / "other" / f"fold_{fold}")
    edited(tmp_path / "other")
    other = Run.open(tmp_path / "other")
    probability, *_ = predict_ensemble([run, other], [0], PredictionInputs.alone(new_tiles), VIEWS)
    assert (
        np.abs(probability - each.mean((0, 1))).max() < 1e-6
    )  # fold 0 of both, which is fold 0 and fold 1 of the first


@pytest.fixture
def twin(run, tmp_path) -> Run:
    """Return a second run in which the weights of folds 0 and 1 are exchanged; it holds out the same tiles."""
    shutil.copytree(run.path, tmp_path / "twin")
    for fold in (0, 1):
        shutil.rmtree(tmp_path / "twin" / f"fold_{fold}")
        shutil.copytree(run.fold_path(1 - fold), tmp_path / "twin" / f"fold_{fold}")
    edited(tmp_path / "twin")
    return Run.open(tmp_path / "twin")


def test_weights_and_logits(run, twin, new_tiles, each, caplog):
    weights = {"tiny": 0.3, "twin": 0.7}
    probability, *_ = predict_ensemble([run, twin], [0], PredictionInputs.alone(new_tiles), VIEWS, run_weights=weights)
    assert np.abs(probability - (0.3 * each[0] + 0.7 * each[1]).mean(0)).max() < 1e-6
    probability, *_ = predict_ensemble(
        [run, twin], [0], PredictionInputs.alone(new_tiles), VIEWS, run_weights=weights, averaging="logit"
    )
    logits = logit(np.clip(each, 2**-11, 1 - 2**-11))  # what half precision, in which predictions are kept, can hold
    expected = expit((0.3 * logits[0] + 0.7 * logits[1]).mean(0))
    assert np.abs(probability - expected).max() < 1e-5 and np.abs(expected - each.mean((0, 1))).max() > 1e-4
    caplog.clear()
    inputs = PredictionInputs.alone(new_tiles)
    probability, *_ = predict_ensemble([run, twin], [0, 1], inputs, VIEWS, run_weights={"tiny": 0.0, "twin": 1.0})
    assert [line.split(",")[0] for line in caplog.messages] == ["Run twin"] * 2  # a run of weight 0 does not predict
    assert np.abs(probability - each.mean((0, 1))).max() < 1e-6


def test_weights_count_among_the_members_that_did_not_train_on_a_tile(run, twin, out_of_fold):
    weights = {"tiny": 0.2, "twin": 0.8}
    probability, seen, leaked, *_ = predict_ensemble(
        [run, twin], [0, 1], PredictionInputs.alone(out_of_fold.tiles), ["identity"], run_weights=weights
    )
    assert (seen, leaked) == (20, [])
    own, other = np.zeros(probability.shape), np.zeros(probability.shape)
    for fold in (0, 1):
        index = np.flatnonzero(out_of_fold.folds == fold)
        for total, member in ((own, load_member(run, fold)), (other, load_member(run, 1 - fold))):
            total[index] = next(predict_views(member, out_of_fold.tiles.images[index], ["identity"])).probability
    assert np.abs(probability - (0.2 * own + 0.8 * other)).max() < 1e-6


@pytest.fixture(scope="module")
def out_of_fold(tiny_run, tmp_path_factory):
    run = Run.open(tiny_run.copy(tmp_path_factory.mktemp("ensemble")) / tiny_run.name)
    return collect([run], pool_tiles(run), VIEWS)


def test_tiles_of_the_pool_are_predicted_by_the_folds_that_held_them_out(run, out_of_fold):
    probability, seen, leaked, *_ = predict_ensemble([run], [0, 1], PredictionInputs.alone(out_of_fold.tiles), VIEWS)
    assert seen == 20 and leaked == []
    expected = sum(out_of_fold.probabilities["tiny"][view].astype(np.float64) for view in VIEWS) / 3
    assert np.abs(probability - expected).max() < 0.0005
    assert np.abs(probability - out_of_fold.probabilities["tiny"]["identity"]).max() > 0.01


def test_they_are_known_by_their_content_whatever_their_name(tiny_run, run, out_of_fold, each, tmp_path, caplog):
    """Three tiles of the pool under other names among new ones."""
    chosen = [0, 7, 19]
    for i, file in enumerate(sorted((tiny_run.data / "test" / "images").iterdir())):
        shutil.copy(file, tmp_path / f"new_{i}.tif")
    for i in chosen:
        shutil.copy(out_of_fold.tiles.refs[i].image, tmp_path / f"other_{i:02d}.tif")
    tiles = load(Dataset.from_images(tmp_path))
    assert [ref.image.stem for ref in tiles.refs] == [
        "new_0",
        "new_1",
        "new_2",
        "new_3",
        "other_00",
        "other_07",
        "other_19",
    ]
    caplog.clear()
    probability, seen, leaked, *_ = predict_ensemble([run], [0, 1], PredictionInputs.alone(tiles), VIEWS)
    assert seen == 3 and leaked == []
    assert np.abs(probability[:4] - each.mean((0, 1))).max() < 1e-6
    expected = sum(out_of_fold.probabilities["tiny"][view][chosen].astype(np.float64) for view in VIEWS) / 3
    assert np.abs(probability[4:] - expected).max() < 0.0005
    held_out = [4 + int((out_of_fold.folds[chosen] == fold).sum()) for fold in (0, 1)]
    assert caplog.messages == [
        f"Run tiny, fold {fold}: {number} tiles in 3 view(s) …" for fold, number in enumerate(held_out)
    ]


def test_tiles_that_every_member_was_trained_on_are_named_and_not_scored(run, out_of_fold, caplog):
    trained_on = [
        str(ref.image) for ref, fold in zip(out_of_fold.tiles.refs, out_of_fold.folds, strict=True) if fold != 0
    ]
    probability, seen, leaked, *_ = predict_ensemble(
        [run], [0], PredictionInputs.alone(out_of_fold.tiles), ["identity"]
    )
    assert leaked == trained_on and seen == len(trained_on)
    (by_fold_0,) = predict_views(load_member(run, 0), out_of_fold.tiles.images, ["identity"])
    assert np.abs(probability - by_fold_0.probability).max() < 1e-6
    listed = "".join(f"\n  - {path}" for path in trained_on[:5])
    what = f"{len(trained_on)} tiles were in the training data of every fold that is used"
    message = f"{what}:{listed}\n  … and {len(trained_on) - 5} more"
    with pytest.raises(InputError, match=re.escape(message)):
        refuse_leaked(leaked)
    caplog.clear()
    tell_leaked(leaked)
    tell_leaked([])
    refuse_leaked([])
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith(
        f"Warning: {len(trained_on)} tiles, such as {trained_on[0]}, were in the training data"
    )
    # Those that fold 0 held out it may predict.
    index = np.flatnonzero(out_of_fold.folds == 0)
    probability, seen, leaked, *_ = predict_ensemble(
        [run], [0], PredictionInputs.alone(out_of_fold.tiles.subset(index)), ["identity"]
    )
    assert (seen, leaked) == (0, []) and np.abs(
        probability - out_of_fold.probabilities["tiny"]["identity"][index]
    ).max() < 0.0005


def test_tiles_that_always_train_are_predicted_by_all(tiny_run, out_of_fold, tmp_path):
    """As with cv official, where no fold holds out a tile of train."""
    path = tiny_run.copy(tmp_path) / tiny_run.name / "splits.json"
    splits = json.loads(path.read_text())
    splits["tiles"][4]["fold"] = -1
    path.write_text(json.dumps(splits))
    edited(path.parent)
    tile = out_of_fold.tiles.subset([4])
    probability, seen, leaked, *_ = predict_ensemble(
        [Run.open(path.parent)], [0, 1], PredictionInputs.alone(tile), ["identity"]
    )
    assert (seen, leaked) == (1, [str(tile.refs[0].image)])
    both = [
        next(predict_views(load_member(Run.open(path.parent), fold), tile.images, ["identity"])).probability
        for fold in (0, 1)
    ]
    assert np.abs(probability - np.mean(both, axis=0)).max() < 1e-6
