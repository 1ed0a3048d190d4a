"""Variance and entropy over members and views, against NumPy and SciPy, and in the rasters of the real command."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from helpers.cli import strict_json, succeed
from helpers.records import edited
from scipy.special import expit, logit
from scipy.stats import entropy as scipy_entropy
from skimage.transform import resize

from marsls_keras.data.decoded.load import load
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.inference.ensemble import predict_ensemble
from marsls_keras.inference.member import load_member, predict_views
from marsls_keras.inference.prediction_inputs import PredictionInputs
from marsls_keras.inference.uncertainty import RunningVariance, entropy
from marsls_keras.runs.run import Run
from marsls_keras.view_sets import VIEW_SETS

WEIGHTS = {"tiny": 0.2, "twin": 0.8}
VIEWS = VIEW_SETS["flips"]


@pytest.fixture(scope="module")
def runs(tiny_run, tmp_path_factory) -> Path:
    """Return a folder of two runs with a decision on both; what is fold 0 of the one is fold 1 of the other.

    Of both, a tile of the pool is one that always trains, as with cv official.
    """
    runs = tiny_run.copy(tmp_path_factory.mktemp("uncertainty"))
    splits = json.loads((runs / "tiny" / "splits.json").read_text())
    splits["tiles"][4]["fold"] = -1
    (runs / "tiny" / "splits.json").write_text(json.dumps(splits))
    edited(runs / "tiny")
    shutil.copytree(runs / "tiny", runs / "twin")
    for fold in (0, 1):
        shutil.rmtree(runs / "twin" / f"fold_{fold}")
        shutil.copytree(runs / "tiny" / f"fold_{1 - fold}", runs / "twin" / f"fold_{fold}")
    edited(runs / "twin")
    (runs / "tiny+twin").mkdir()
    members = {name: Run.open(runs / name).digest([0, 1]) for name in WEIGHTS}
    decision = {"runs": list(WEIGHTS), "folds": [0, 1], "members": members, "views": "flips", "threshold": 0.45}
    decision |= {"weights": WEIGHTS, "averaging": "logit"}
    (runs / "tiny+twin" / "decision.json").write_text(json.dumps(decision))
    return runs


def each_of(runs: Path, tiles: Tiles, folds: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the predictions of all members and views, float64 (members, views, N, H, W), and the members' weights."""
    members = [(name, fold) for name in WEIGHTS for fold in folds]
    found = [
        [seen.probability for seen in predict_views(load_member(Run.open(runs / n), k), tiles.images, VIEWS)]
        for n, k in members
    ]
    return np.array(found, np.float64), np.array([WEIGHTS[name] for name, _ in members])


def variance_of(each: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted variance over members and views of an array (members, views, …)."""
    flat, weights = each.reshape(-1, *each.shape[2:]), np.repeat(weights, each.shape[1])
    mean = np.average(flat, axis=0, weights=weights)
    return np.average((flat - mean) ** 2, axis=0, weights=weights)


def test_variance_over_the_members_that_predict_a_tile(tiny_run, runs):
    """A new tile has four members, one held out by a fold has two, one that all were trained on has four again."""
    opened = [Run.open(runs / name) for name in WEIGHTS]
    held_by = {tile["id"]: tile["fold"] for tile in opened[0].splits.tiles}
    everything = load(Dataset.open(tiny_run.data))
    kinds = [held_by.get(ref.id, "new") for ref in everything.refs]
    tiles = everything.subset([kinds.index(kind) for kind in ("new", -1, 0, 1)])
    prediction = predict_ensemble(
        opened, [0, 1], PredictionInputs.alone(tiles), VIEWS, run_weights=WEIGHTS, uncertainty=True
    )
    each, weights = each_of(runs, tiles, [0, 1])
    assert prediction.leaked == [str(tiles.refs[1].image)] and prediction.seen == 3
    for i, members in enumerate(([0, 1, 2, 3], [0, 1, 2, 3], [0, 2], [1, 3])):
        expected = variance_of(each[members][:, :, i], weights[members])
        assert np.abs(prediction.variance[i] - expected).max() < 1e-6 and expected.max() > 1e-3
        equal = variance_of(each[members][:, :, i], np.ones(len(members)))
        # Of two members it shows whether weights count; of four it cannot, since those of the one run are those of the
        # other.
        assert len(members) == 4 or np.abs(expected - equal).max() > 1e-4
        mean = np.average(each[members][:, :, i].mean(1), axis=0, weights=weights[members])
        assert np.abs(prediction.probability[i] - mean).max() < 1e-6
    assert prediction.variance.dtype == np.float32


def test_variance_of_what_is_nearly_the_same():
    """The mean square minus the squared mean would lose all digits in float32, and be negative in places."""
    rng = np.random.default_rng(0)
    each = (0.9 + 1e-4 * rng.standard_normal((20, 3, 8, 8))).astype(np.float32)
    weights = rng.uniform(0.1, 1, 20)
    running = RunningVariance((3, 8, 8))
    for values, weight in zip(each, weights, strict=True):
        running.add(np.arange(3), values, weight)
    expected = np.average(
        (each - np.average(each.astype(np.float64), axis=0, weights=weights)) ** 2, axis=0, weights=weights
    )
    assert np.allclose(running.result(), expected, rtol=1e-2, atol=0) and running.result().min() > 0
    naive = (
        np.average(each**2, axis=0, weights=weights.astype(np.float32))
        - np.average(each, axis=0, weights=weights.astype(np.float32)) ** 2
    )
    assert not np.allclose(naive.astype(np.float32), expected, rtol=0.5, atol=0)
    alone = RunningVariance((2, 1, 1))
    alone.add(np.array([0, 1]), np.array([[[0.3]], [[0.0]]]), 0.7)
    alone.add(np.array([1]), np.array([[[1.0]]]), 0.7)
    assert alone.result().ravel().tolist() == [0, 0.25]


def test_entropy():
    probability = np.concatenate([[0, 1, 0.5, 1e-30], np.random.default_rng(1).random(20)]).astype(np.float32)
    found = entropy(probability)
    assert found.dtype == np.float32 and found[:3].tolist() == [0, 0, 1] and found[3] < 1e-27
    wide = probability.astype(np.float64)
    assert np.allclose(found, scipy_entropy([wide, 1 - wide], base=2), atol=1e-6)


def test_rasters(tiny_run, runs, tmp_path):
    """Of two runs, as the decision on them has it, whose networks see tiles at half their size; and joined."""
    runs = Path(shutil.copytree(runs, tmp_path / "runs"))
    for path in runs.rglob("config.yaml"):
        config = yaml.safe_load(path.read_text())
        config["data"]["resize"] = 16
        path.write_text(yaml.safe_dump(config))
    images, out = tiny_run.data / "test" / "images", tmp_path / "out"
    common = ["--runs", runs, "--images", images, "--out", out, "--folds", 0]
    shown = succeed("predict", *WEIGHTS, *common, "--uncertainty", "--mosaic", "--json")
    result = strict_json(shown.out)
    kinds = ["probability", "mask", "variance", "entropy"]
    assert result["folders"] == [str(out / kind) for kind in kinds] and result["mosaics"] == [
        str(out / f"{kind}.tif") for kind in kinds
    ]
    assert "the variance there is 0" not in shown.err
    tiles = load(Dataset.from_images(images), resize=16)
    assert tiles.images.shape[1:3] == (16, 16)
    each, weights = each_of(runs, tiles, [0])
    mean = expit(np.average(logit(np.clip(each, 2**-11, 1 - 2**-11)).mean(1), axis=0, weights=weights))

    def own(values: np.ndarray) -> np.ndarray:
        return resize(values, (32, 32), order=1, mode="edge", anti_aliasing=False)

    with rasterio.open(out / "variance.tif") as variance, rasterio.open(out / "entropy.tif") as uncertain:
        joined = {"variance": variance.read(1), "entropy": uncertain.read(1)}
        covered = np.zeros(variance.shape, bool)
        for i, ref in enumerate(tiles.refs):
            probability = own(mean[i])
            expected = {
                "variance": own(variance_of(each[:, :, i], weights)),
                "entropy": scipy_entropy([probability, 1 - probability], base=2),
            }
            for kind, values in expected.items():
                with rasterio.open(ref.image) as image, rasterio.open(out / kind / ref.image.name) as raster:
                    assert (raster.count, raster.dtypes[0], raster.crs, raster.transform) == (
                        1,
                        "float32",
                        image.crs,
                        image.transform,
                    )
                    found = raster.read(1)
                    row, col = variance.index(*(image.transform * (0.5, 0.5)))
                assert found.shape == (32, 32) and np.abs(found - values).max() < (2e-6 if kind == "variance" else 2e-5)
                assert found.min() >= 0 and found.max() > 1e-3
                window = np.s_[row : row + 32, col : col + 32]
                assert np.array_equal(joined[kind][window], found)
                covered[window] = True
        assert all(np.array_equal(np.isnan(values), ~covered) for values in joined.values()) and not covered.all()


def test_one_member_in_one_view_has_no_variance(tiny_run, tmp_path):
    out = tmp_path / "out"
    shown = succeed(
        "predict",
        "tiny",
        "--runs",
        tiny_run.runs,
        "--images",
        tiny_run.data / "test",
        "--out",
        out,
        "--folds",
        0,
        "--uncertainty",
    )
    assert "One member in one view predicts 4 of 4 tiles, so the variance there is 0.\n" in shown.err
    assert shown.out.startswith(f"4 tiles to {out}/probability, {out}/mask, {out}/variance and {out}/entropy, ")
    for path in sorted((out / "variance").iterdir()):
        with rasterio.open(path) as raster, rasterio.open(out / "entropy" / path.name) as uncertain:
            assert not raster.read(1).any() and uncertain.read(1).max() > 0.1
