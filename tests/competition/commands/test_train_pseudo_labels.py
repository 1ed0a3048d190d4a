"""Pseudo-labels: made from predictions, used in the loss, in a refit by the real command, and errors."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from competition.cli import main
from competition.commands.train import TrainRequest, train
from marsls_keras.config import Augmentation
from marsls_keras.data.fingerprint import images_digest
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.data.normalization import Normalizer
from marsls_keras.inference.ensemble import predict_ensemble
from marsls_keras.inference.inputs import read_images
from marsls_keras.inference.member import load_member, predict_views
from marsls_keras.inference.prediction_inputs import PredictionInputs
from marsls_keras.losses import build_loss, positive_weight
from marsls_keras.metrics import SegmentationCounts
from marsls_keras.runs.run import Run, read_history
from marsls_keras.training.fold_data import FoldData
from marsls_keras.training.pseudo_labelling import pseudo_labelled, to_labels
from marsls_keras.training.pseudo_labels import UNCERTAIN, PseudoLabels
from marsls_keras.training.refit import RefitPlan, plan_refit
from marsls_keras.tuning.out_of_fold import pool_tiles

CONFIDENCE = 0.55
"""Confidence that the tiny folds reach on some pixels of both classes, and not on others."""


def command(run: Run, *options: object) -> list[str]:
    return ["train", "--run", run.name, "--runs", str(run.path.parent), *map(str, options)]


# --- From predictions to labels ---------------------------------------------------------------------------------------


def test_a_pixel_is_what_it_is_certain_to_be_and_else_nothing():
    nine, one = np.float32(0.9), np.float32(1 - 0.9)
    probability = np.array([[[0, 0.05, one, np.nextafter(one, 1)], [0.5, np.nextafter(nine, 0), nine, 1]]], np.float32)
    labels = to_labels(probability, 0.9)
    assert labels.dtype == np.uint8 and labels.tolist() == [[[0, 0, 0, 255], [255, 255, 1, 1]]]


def test_a_detection_head_is_not_told_that_there_is_no_landslide_where_it_is_unknown():
    probability = np.array([[[0.01, 0.5]], [[0.99, 0.5]], [[0.01, 0.02]]], np.float32)  # unknown, some, none
    assert to_labels(probability, 0.9, detection=True).tolist() == [[[255, 255]], [[1, 255]], [[0, 0]]]
    assert to_labels(probability, 0.9).tolist() == [[[0, 255]], [[1, 255]], [[0, 0]]]


# --- From labels to the loss ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", ["tiles", "windows"])
def test_only_certain_pixels_count_in_loss_and_metric(tiny_run, sampling):
    """The first band holds the kind of each pixel: 1 background, 2 landslide, 3 uncertain, 0 outside of all tiles."""
    run = Run.open(tiny_run.path)
    data = run.config.data.model_copy(update={"sampling": sampling, "window_sizes": (48,)})
    moved = Augmentation(cutmix=0.5, mosaic=0.5, crop={"probability": 0.5})
    run = replace(run, config=run.config.model_copy(update={"data": data, "augmentation": moved}))
    pool = pool_tiles(run)
    labelled, others = pool.subset(range(12)), pool.subset(range(12, 20))
    labels = np.random.default_rng(0).choice([0, 1, UNCERTAIN], others.masks.shape).astype(np.uint8)
    labelled.images[..., 0] = 1 + labelled.masks
    others.images[..., 0] = np.select([labels == 0, labels == 1], [1, 2], 3)
    train, weights = PseudoLabels(others, labels).added_to(labelled)
    normalizer = Normalizer(pool.bands, None, None, None)
    fold = FoldData(run, "full", train, pool.subset([]), normalizer, "last", weights)
    crop_free = 0
    for image, mask, weight in fold.batches(10).dataset().take(4):
        kind, logits = np.asarray(image)[..., :1], np.asarray(image)[..., 1:2]
        exact = np.isin(kind, [0, 1, 2, 3])  # a crop is enlarged, so that its pixels lie between others
        crop_free += exact.mean() / 4
        assert np.array_equal(np.asarray(weight)[exact] == 1, np.isin(kind[exact], [1, 2]))
        certain = np.asarray(weight) == 1
        assert np.array_equal(np.asarray(mask)[exact & certain], kind[exact & certain] == 2)
        truth = np.asarray(mask)[certain]
        expected = (np.logaddexp(0, logits[certain]) - truth * logits[certain]).mean()  # binary cross-entropy
        loss = build_loss({"bce": 1.0})
        assert float(loss(mask, logits, weight)) == pytest.approx(expected, rel=1e-5)
        flipped = np.where(certain, mask, 1 - np.asarray(mask))
        assert float(loss(flipped, logits, weight)) == float(loss(mask, logits, weight))
        metric = SegmentationCounts()
        metric.update_state(mask, logits, sample_weight=weight)
        counts, predicted = metric.counts(), logits[certain] >= 0
        assert (counts.tp, counts.fp) == ((truth * predicted).sum(), ((1 - truth) * predicted).sum())
        assert counts.tp + counts.fp + counts.fn + counts.tn == certain.sum()
    assert crop_free > 0.3
    positive = labelled.masks.sum() + (labels == 1).sum()
    assert positive_weight(fold.labels) == (labelled.masks.size + (labels != UNCERTAIN).sum() - positive) / positive


# --- The road ---------------------------------------------------------------------------------------------------------


class Kept(logging.Handler):
    """Callback that keeps the logs."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


class Counting(keras.callbacks.Callback):
    """Callback that keeps how many pixels the metric has counted in each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels: list[int] = []

    def on_epoch_end(self, epoch, logs=None):
        (metric,) = self.model._compile_metrics.metrics
        self.pixels.append(int(np.sum(metric.cells)))


@pytest.fixture(scope="module")
def images(tiny_run, tmp_path_factory) -> Path:
    """Return a folder with the four test images, and one of a training tile, sorted between them."""
    folder = Path(shutil.copytree(tiny_run.data / "test/images", tmp_path_factory.mktemp("unlabelled") / "images"))
    tile = sorted((tiny_run.data / "train/images").iterdir())[3]
    shutil.copy(tile, folder / tile.name)
    return folder


@pytest.fixture(scope="module")
def refit(tiny_run, images, tmp_path_factory) -> tuple[Run, list[int], list[str]]:
    """Return a run with a refit of three epochs with pseudo-labels, the pixels counted per epoch, and the messages."""
    run = Run.open(tiny_run.copy(tmp_path_factory.mktemp("pseudo")) / tiny_run.name)
    counting, kept = Counting(), Kept()
    options = {"epochs": 3, "pseudo": images, "confidence": CONFIDENCE, "callbacks": [counting]}
    logging.getLogger().addHandler(kept)  # caplog is that of one test
    try:
        train(TrainRequest(fold="full", runs=run.path.parent, name=run.name, **options))
    finally:
        logging.getLogger().removeHandler(kept)
    return Run.open(run.path), counting.pixels, kept.messages


def test_the_folds_label_what_is_no_labelled_tile(refit, images):
    run, pixels, said = refit
    folder = run.fold_path("full")
    assert "1 of 5 images" in said[1] and "need no pseudo-labels" in said[1]
    tiles = read_images(images, "auto", [run], "identity").tiles
    new = [i for i, digest in enumerate(tiles.hashes) if digest not in pool_tiles(run).hashes]
    each = [
        next(iter(predict_views(load_member(run, fold), tiles.images[new], ["identity"]))).probability
        for fold in (0, 1)
    ]
    mean = np.mean(each, axis=0)
    with np.load(folder / "pseudo_labels.npz") as saved:
        labels = saved["labels"]
        assert list(saved["ids"]) == [tiles.refs[i].id for i in new]
    assert labels.dtype == np.uint8 and set(np.unique(labels)) == {0, 1, 255}
    clear = np.abs(np.abs(mean - 0.5) - (CONFIDENCE - 0.5)) > 1e-5
    assert clear.mean() > 0.99
    assert np.array_equal(
        labels[clear], np.where(mean >= CONFIDENCE, 1, np.where(mean <= 1 - CONFIDENCE, 0, 255))[clear]
    )
    record = json.loads((folder / "full.json").read_text())["pseudo"]
    assert (record["folder"], record["tiles"], record["left_out"], record["confidence"]) == (
        str(images),
        4,
        1,
        CONFIDENCE,
    )
    assert record["images_sha256"] == images_digest(tiles) and record["folds"] == run.digest([0, 1])
    certain = labels != UNCERTAIN
    assert record["confident"] == certain.mean() and record["landslide"] == (labels[certain] == 1).mean()
    assert record["decision"] == {"views": "identity", "weights": None, "averaging": "probability"}
    # Six steps of four tiles: each of the 24 tiles once an epoch, and of those that were labelled here the certain
    # pixels alone.
    assert pixels == [20 * 32 * 32 + certain.sum()] * 3
    assert "on 24 tiles (4 of them pseudo-labelled), none held out" in (folder / "log.txt").read_text()
    # The statistics are those of the labelled tiles, and these alone count as seen in training.
    mean = json.loads((folder / "normalization.json").read_text())["mean"]
    assert np.allclose(mean, pool_tiles(run).images.mean(axis=(0, 1, 2), dtype=np.float64), rtol=1e-5)
    assert predict_ensemble([run], ["full"], PredictionInputs.alone(tiles), ["identity"]).seen == 1


def test_a_submission_says_what_its_weights_have_seen(refit, tiny_run, tmp_path, capsys):
    run, _, _ = refit
    arguments = ["submit", "--run", run.name, "--runs", run.path.parent, "--images", tiny_run.data / "test"]
    assert main([*map(str, arguments), "--folds", "full", "--out", str(tmp_path / "a.zip")]) == 0
    error = capsys.readouterr().err
    assert (
        "Run tiny was also trained on pseudo-labels of 4 images in" in error
        and "(transductive)" in error
        and "Warning" not in error
    )
    manifest = json.loads((tmp_path / "a.json").read_text())
    assert manifest["pseudo_labels"] == {
        "tiny": json.loads((run.fold_path("full") / "full.json").read_text())["pseudo"]
    }
    assert manifest["seen_in_training"] == manifest["seen_by_every_fold"] == 0
    assert main([*map(str, arguments), "--out", str(tmp_path / "b.zip")]) == 0
    assert (
        json.loads((tmp_path / "b.json").read_text())["pseudo_labels"] is None
        and "pseudo" not in capsys.readouterr().err
    )
    assert main(["predict", *map(str, arguments[2:]), "--folds", "full", "--out", str(tmp_path / "c"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pseudo_labels"] == manifest["pseudo_labels"]


class Stopping(keras.callbacks.Callback):
    """Callback that stops training when the state after the second epoch is on disk."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_stopped_refit_goes_on_with_the_labels_that_it_began_with(refit, tiny_run, images, tmp_path):
    run = Run.open(tiny_run.copy(tmp_path / "runs") / tiny_run.name)
    moved = Path(shutil.copytree(images, tmp_path / "moved"))
    options = {"epochs": 3, "pseudo": moved, "confidence": CONFIDENCE, "callbacks": [Stopping()]}
    with pytest.raises(KeyboardInterrupt):
        train(TrainRequest(fold="full", runs=run.path.parent, name=run.name, **options))
    for fold in (0, 1):  # nothing can be predicted again
        (run.fold_path(fold) / "best.weights.h5").unlink()
    moved.rename(tmp_path / "elsewhere")
    assert main(command(run, "--fold", "full", "--resume", "--pseudo", tmp_path / "elsewhere")) == 0
    one, other = run.fold_path("full"), refit[0].fold_path("full")
    assert (one / "best.weights.h5").read_bytes() == (other / "best.weights.h5").read_bytes()
    assert [row["loss"] for row in read_history(one / "history.csv")] == [
        row["loss"] for row in read_history(other / "history.csv")
    ]
    assert "Resuming after epoch 2" in (one / "log.txt").read_text()


def test_windows_see_the_labelled_tiles_around(tiny_run, tmp_path, caplog):
    """Those of the folder itself, too, which get no labels; and the decision of the folds is followed."""
    run = Run.open(tiny_run.copy(tmp_path / "runs") / tiny_run.name)
    view, own = "identity@48/48", {"weights": {"tiny": 1.0}, "averaging": "logit"}
    decision = {"views": view, **own, "threshold": 0.3, "max_hole": 5, "min_area": 5, "runs": ["tiny"], "folds": [0]}
    decision["members"] = {"tiny": run.digest([0])}
    (run.path / "decision.json").write_text(json.dumps(decision))
    # Six tiles of the training data, of which two are called labelled here.
    names = sorted(path.name for path in (tiny_run.data / "train/images").iterdir())[5:11]
    (tmp_path / "images").mkdir()
    for name in names:
        shutil.copy(tiny_run.data / "train/images" / name, tmp_path / "images" / name)
    pool = pool_tiles(run)
    labelled = pool.subset([i for i, ref in enumerate(pool.refs) if ref.image.name in (names[1], names[4])])
    plan, pseudo = pseudo_labelled(
        run, replace(plan_refit(run), folds=(0,)), labelled, tmp_path / "images", CONFIDENCE, False
    )
    assert plan.pseudo.decision == {"views": view, **own}
    assert (plan.pseudo.tiles, plan.pseudo.left_out) == (4, 2) and any(
        "windows see those around them" in line for line in caplog.messages
    )
    inputs = read_images(tmp_path / "images", "auto", [run], view)
    assert (
        inputs.number == len(inputs.wanted) == len(inputs.refs) == 6
        and inputs.surroundings == len(inputs.tiles) - 6 > 0
    )
    assert inputs.wanted.hashes == inputs.tiles.hashes[:6]
    expected = predict_ensemble([run], [0], inputs, [view], averaging="logit").probability[[0, 2, 3, 5]]
    assert np.mean(to_labels(expected, CONFIDENCE) == pseudo.labels) > 0.999
    assert [ref.image.name for ref in pseudo.tiles.refs] == [names[i] for i in (0, 2, 3, 5)]


def test_images_that_claim_one_cell_lie_by_themselves(tiny_run, tmp_path):
    run, (one, other, *_) = Run.open(tiny_run.path), sorted((tiny_run.data / "test/images").iterdir())
    for path, name in ((one, "mask_col00000_row00000.tif"), (other, "col00000_row00000.tif")):
        shutil.copy(path, tmp_path / name)
    pool = pool_tiles(run)
    _, pseudo = pseudo_labelled(run, replace(plan_refit(run), folds=(0,)), pool, tmp_path, CONFIDENCE, False)
    joined, weights = pseudo.added_to(pool)
    assert len(TileGrid.of(joined.refs, 32, 32).origins) == len(weights) == 22
    assert [ref.cell for ref in pseudo.tiles.refs] == [None, None] and joined.refs[:20] == pool.refs


# --- What is refused --------------------------------------------------------------------------------------------------


def refused(arguments: list[str], capsys) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pseudo", "{test}"], "only the refit on all tiles trains on pseudo-labels. Add --fold full. Received: all"),
        (["--fold", "0", "--pseudo", "{test}"], "Received: 0"),
        (
            ["--fold", "full", "--confidence", "0.8"],
            "--confidence 0.8 is that of pseudo-labels. Give the folder of images with --pseudo.",
        ),
        (
            ["--fold", "full", "--pseudo", "{test}", "--confidence", "0.5"],
            "above 0.5 and below 1, such as 0.9. Received: 0.5",
        ),
        (["--fold", "full", "--pseudo", "{test}", "--confidence", "1"], "Received: 1"),
        (["--fold", "full", "--pseudo", "{test}", "--confidence", "nan"], "Received: nan"),
        (
            ["--fold", "full", "--pseudo", "{test}", "--confidence", "0.99999"],
            "none of the 4,096 pixels is as certain as 0.99999",
        ),
        (["--fold", "full", "--pseudo", "{train}"], "all of the 16 images are labelled tiles of run tiny"),
        (["--fold", "full", "--pseudo", "{train}/nowhere"], "There is no folder"),
        (
            ["--fold", "full", "--pseudo", "{other}"],
            "holds tiles of landslide4sense, but the run was trained on mmls_v2",
        ),
        (
            ["--fold", "full", "--pseudo", "{large}"],
            "holds tiles of 48 x 48 pixels, but the labelled ones have 32 x 32",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tiny_run, others, options, message, capsys):
    folders = {"test": tiny_run.data / "test", "train": tiny_run.data / "train", **others}
    run = Run.open(tiny_run.path)
    assert message in refused(command(run, *(option.format(**folders) for option in options)), capsys)
    assert not run.fold_path("full").exists()


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> dict[str, Path]:
    """Return folders of images of another kind, and of another size."""
    from marsls_keras.data.synthetic.mars import write_dataset

    root = tmp_path_factory.mktemp("others")
    write_dataset(root / "earth", "landslide4sense", train=1, val=1, test=2, size=32)
    write_dataset(root / "large", "mmls_v2", train=1, val=1, test=2, size=48)
    return {"other": root / "earth/TestData/img", "large": root / "large/test/images"}


def test_a_run_without_a_finished_fold_labels_nothing(tiny_run, tmp_path, capsys):
    options = ["--fold", "full", "--epochs", "2", "--pseudo", str(tiny_run.data / "test")]
    new = [
        "train",
        "--config",
        str(tiny_run.recipe),
        "--data",
        str(tiny_run.data),
        "--runs",
        str(tmp_path / "runs"),
        *options,
    ]
    assert "run tiny has no finished fold that could label images" in refused(new, capsys)
    assert not (tmp_path / "runs").exists()


def test_a_refit_goes_on_with_nothing_else(refit, tiny_run, images, tmp_path, capsys):
    run = Run.open(Path(shutil.copytree(refit[0].path, tmp_path / "runs/tiny")))
    again = command(run, "--fold", "full", "--resume")
    assert "Fold full of run tiny is finished" in refused([*again, "--pseudo", str(images)], capsys)
    (run.fold_path("full") / "metrics.json").unlink()
    before = sorted(run.path.rglob("*"))
    test = str(tiny_run.data / "test")
    assert "began with other images, those that were in" in refused([*again, "--pseudo", test], capsys)
    assert "--confidence 0.8: the refit of run tiny began with 0.55" in refused(
        [*again, "--pseudo", test, "--confidence", "0.8"], capsys
    )
    labels = run.fold_path("full") / "pseudo_labels.npz"
    content = labels.read_bytes()
    labels.write_bytes(content[:200])
    assert "pseudo_labels.npz cannot be read" in refused(again, capsys)
    np.savez(labels, ids=np.array(["images/other"]), labels=np.zeros((1, 32, 32), np.uint8))
    assert "pseudo_labels.npz holds pseudo-labels of other tiles" in refused(again, capsys)
    labels.write_bytes(content)
    plan = run.fold_path("full") / "full.json"
    without = {key: value for key, value in json.loads(plan.read_text()).items() if key != "pseudo"}
    plan.write_text(json.dumps(without))  # as an earlier version wrote it
    assert RefitPlan.read(plan).pseudo is None
    assert "began without pseudo-labels" in refused([*again, "--pseudo", test], capsys)
    assert sorted(run.path.rglob("*")) == before
