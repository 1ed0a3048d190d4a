"""All commands in the order of a user, through the real `main`, and partly in processes of their own."""

import csv
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from helpers.cli import FIELDS, SETTINGS, imported, marsls, numbers, process, scores, snapshot, strict_json, succeed
from helpers.components import by_scikit_image
from scipy.special import expit, logit

from marsls_keras import __version__

COMMANDS = (
    "synth",
    "check",
    "models",
    "bench",
    "train",
    "evaluate",
    "predict",
    "tune",
    "submit",
    "score",
    "ledger",
    "report",
    "demo",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Work in a folder with data; all defaults are relative to it."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.delenv("MARSLS_DATA", raising=False)
        patch.delenv("MARSLS_RUNS", raising=False)
        succeed("synth", "data", "--size", 32, "--train", 12, "--val", 4, "--test", 5)
        yield home


@pytest.fixture(scope="module")
def trained(home):
    """Train fold 0, then run the command that it prints as the next one."""
    first = succeed("train", "--fold", 0, *SETTINGS, "--set", "loss={bce: 1, dice: 1}")
    fold = snapshot("runs/default/fold_0")
    following = re.search(r"^Left to train: fold 1\.\nNext: marsls (.*)$", first.out, re.M)
    assert following, first.out
    second = succeed(*shlex.split(following[1]))
    assert snapshot("runs/default/fold_0") == fold
    return first, second


DECISION = {"views": "flips", "averaging": "logit", "threshold": 0.46, "min_area": 9, "max_hole": 4}


def decided_masks(probability: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the masks that DECISION makes from probabilities."""
    return {name: by_scikit_image(values >= np.float32(0.46), 9, 4) for name, values in probability.items()}


@pytest.fixture(scope="module")
def decided(trained):
    """Give the run a decision unlike the default, so that tests show whether it is followed."""
    succeed("tune", "--for", "published")
    path = Path("runs/default/decision.json")
    changed = json.loads(path.read_text()) | DECISION
    del changed["sha256"]  # or it would be told that tune did not write it
    path.write_text(json.dumps(changed))
    return path


@pytest.fixture(scope="module")
def predicted(decided):
    """Predict the test tiles."""
    result = succeed("predict", "default", "--images", "data/test", "--out", "predicted", "--mosaic")
    return result, {path.name: tifffile.imread(path) for path in Path("predicted/probability").iterdir()}


@pytest.fixture(scope="module")
def submitted(decided):
    """Write the zip."""
    return succeed("submit")


@pytest.fixture
def again(trained, tmp_path):
    """Return a copy of the trained run, to be changed, as (name, folder of the runs)."""
    shutil.copytree("runs/default", tmp_path / "runs" / "copy", ignore=shutil.ignore_patterns("decision.json"))
    return "copy", tmp_path / "runs"


def test_masks(folder="data/test"):
    return {path.name: tifffile.imread(path) for path in Path(folder, "masks").iterdir()}


test_masks.__test__ = False


@pytest.mark.parametrize(
    ("release", "image", "mask"),
    [
        ("mmls_v1", "train_partition/images/Image_patch_*.tif", "train_partition/masks/Mask_patch_*.tif"),
        ("mmls_v2", "train/images/col*_row*.tif", "train/masks/col*_row*.tif"),
        ("challenge", "train/images/col*_row*.tif", "train/masks/col*_row*.tif"),
    ],
)
def test_synth_and_check(tmp_path, release, image, mask):
    out = tmp_path / "tiles"
    result = succeed("synth", out, "--release", release, "--size", 32, "--train", 5, "--val", 2, "--test", 3)
    assert (result.out, result.err) == (
        f"{out}: 5 train tiles, 2 val tiles, 3 test tiles\nNext: marsls check {out}\n",
        "",
    )
    assert len(list(out.glob(image))) == len(list(out.glob(mask))) == 5
    assert {path.suffix for path in out.rglob("*") if path.is_file()} == {".tif"}
    checked = succeed("check", out)
    assert checked.out.startswith(f"{out}: {release}, 32 x 32 pixels\n")
    assert "0 error(s)" in checked.out and checked.out.endswith(f"\nNext: marsls train --data {out}\n")
    assert checked.err == ""


def test_synth_is_seeded(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        succeed("synth", tmp_path / name, "--size", 32, "--train", 2, "--val", 0, "--test", 1, "--seed", seed)
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b") != snapshot(tmp_path / "c")


def test_check_table(home):
    out = succeed("check").out  # the folder data, by default
    assert out.startswith("data: mmls_v2, 32 x 32 pixels\n")
    for split, number in (("train", 12), ("val", 4), ("test", 5)):
        assert numbers(out, f"{split} ")[:2] == [number, number]
        assert f"Bands of {split}" in out
    assert out.endswith("0 error(s), 0 warning(s).\nNext: marsls train\n")


def test_check_json(home, monkeypatch):
    monkeypatch.setenv("MARSLS_DATA", "data")
    result = strict_json(succeed("check", "--json").out)
    assert (result["release"], result["size"], result["problems"]) == ("mmls_v2", [32, 32], [])
    assert {name: (split["tiles"], split["labelled"]) for name, split in result["splits"].items()} == {
        "train": (12, 12),
        "val": (4, 4),
        "test": (5, 5),
    }
    thermal = np.stack([tifffile.imread(path)[..., 5] for path in Path("data/val/images").iterdir()])
    found = result["splits"]["val"]["bands"]["thermal"]
    assert [found[key] for key in ("min", "mean", "std", "max")] == pytest.approx(
        [thermal.min(), thermal.mean(), thermal.std(), thermal.max()], abs=1e-5
    )
    ratio = [mask.mean() for mask in test_masks("data/val").values()]
    assert result["splits"]["val"]["foreground"] == pytest.approx(
        {"min": min(ratio), "mean": np.mean(ratio), "max": max(ratio)}
    )


def test_models():
    rows = {row["name"]: row for row in strict_json(succeed("models", "--json").out)}
    assert (rows["unet"]["parameters"], rows["unet"]["trainable"]) == (1_946_097, 1_943_153)
    assert (rows["dual_swin"]["parameters"], rows["dual_swin"]["trainable"]) == (113_437_717, 113_429_013)
    table = succeed("models").out
    assert "1,946,097" in table and "base_filters=16, depth=4" in table


def held_out_scores(fold, threshold=0.5):
    """Return a fold's scores from its oof.npz and the masks on disk."""
    with np.load(f"runs/default/fold_{fold}/oof.npz") as arrays:
        masks = [
            tifffile.imread(Path("data", *id.split("/")[:1], "masks", f"{Path(id).name}.tif")) for id in arrays["ids"]
        ]
        return scores(masks, arrays["view_identity"] >= threshold)


def test_train_one_fold(trained):
    first, _ = trained
    assert "Training unet (587 parameters) on " in first.err
    assert re.search(r"^default fold 0 · epoch +1/1  loss ", first.err, re.M)
    assert "epoch   1/1" not in first.out and "Training" not in first.out  # progress is not a result
    assert numbers(first.out, "fold 0, epoch 1")[-6:] == pytest.approx(list(held_out_scores(0).values()), abs=1e-3)


def test_train_all_skips_what_is_finished(trained):
    _, second = trained
    assert second.err.startswith("Fold 0 of run default is finished already.\n")
    assert "default fold 1 · epoch" in second.err and "default fold 0" not in second.err
    assert numbers(second.out, "fold 1, epoch 1")[-6:] == pytest.approx(list(held_out_scores(1).values()), abs=1e-3)
    assert "fold 0" not in second.out
    assert second.out.endswith("\nNext: marsls tune\n")


def test_train_all_again_has_nothing_to_do(trained):
    before = snapshot("runs")
    result = succeed("train", *SETTINGS, "--set", "loss={bce: 1, dice: 1}")
    assert result == (
        0,
        "Next: marsls tune\n",
        "Fold 0 of run default is finished already.\nFold 1 of run default is finished already.\n",
    )
    assert snapshot("runs") == before


def test_overwrite_keeps_the_earlier_fold(again):
    name, runs = again
    before = snapshot(runs / name / "fold_1")
    config = runs / name / "config.yaml"  # the run's own configuration trains it again
    result = succeed("train", "--config", config, "--run", name, "--runs", runs, "--fold", 1, "--overwrite")
    assert snapshot(runs / name / "fold_1.old") == before
    assert f"Next: marsls tune --run {name} --runs {runs}" in result.out
    assert (runs / name / "fold_1" / "metrics.json").exists()


@pytest.mark.slow
def test_interrupted_training_is_resumed(home):
    arguments = ["train", "--run", "long", "--fold", "0", *SETTINGS, "--set", "training.epochs=12"]
    environment = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-m", "competition.cli", *arguments]
    # A shell starts its background jobs deaf to Ctrl-C, and they hand that on; where the tests are such a job, the
    # training must not be.
    hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, env=environment, preexec_fn=hear) as training:
        begun = []
        for line in training.stderr:
            begun.append(line)
            if "epoch   2/12" in line:
                training.send_signal(signal.SIGINT)
                break
        rest, out = training.stderr.read(), training.stdout.read()
    assert training.returncode == 130, rest
    stopped = (
        r"Stopped (in epoch \d+, after step 1 of 2|after epoch \d+); the state is saved\. "
        r"Go on with the same command and --resume\.\n"
    )
    assert re.search(stopped + r"\Z", rest) and "Traceback" not in rest
    ours = ("Importing the backend", "Building the network", "Training unet", "long fold 0 · epoch")
    assert all(line.startswith(ours) for line in begun), begun  # nothing that TensorFlow has to say
    assert out == ""

    unfinished = marsls("train", "--run", "long", "--fold", "0", *SETTINGS, "--set", "training.epochs=12")
    assert (
        unfinished.code == 2
        and "fold 0 is unfinished: marsls train --run long --fold 0 --epochs 12 --resume" in unfinished.err
    )
    result = succeed(*arguments, "--resume")
    assert re.search(r"^Resuming after epoch \d+( and step 1 of the next)?\.$", result.err, re.M)
    assert "epoch  12/12" in result.err and "epoch   1/12" not in result.err
    with open("runs/long/fold_0/history.csv") as file:
        assert [float(row["epoch"]) for row in csv.DictReader(file)] == list(range(12))


def test_tune_json(again):
    name, runs = again
    decision = strict_json(succeed("tune", "--for", "published", "--run", name, "--runs", runs, "--json").out)
    assert decision == json.loads((runs / name / "decision.json").read_text())
    assert (decision["runs"], decision["folds"]) == ([name], [0, 1])
    assert 0 < decision["threshold"] < 1 and decision["views"] in decision["view_sets"]
    assert [fold["fold"] for fold in decision["nested"]["per_fold"]] == [0, 1]
    truth, probability = [], []
    for fold in (0, 1):
        with np.load(runs / name / f"fold_{fold}" / "oof.npz") as arrays:
            truth += [
                tifffile.imread(Path("data", id.split("/")[0], "masks", f"{Path(id).name}.tif")) for id in arrays["ids"]
            ]
            probability += list(arrays["view_identity"])
    assert len(truth) == 16
    assert decision["baseline"]["scores"] == pytest.approx(scores(truth, np.stack(probability) >= 0.5))
    low, high = decision["baseline"]["interval"]
    assert 0 <= low <= decision["baseline"]["scores"]["miou"] <= high <= 1


def test_tune_table(again):
    name, runs = again
    result = succeed("tune", "--for", "published", "--run", name, "--runs", runs)
    assert "Predicting 8 tiles of fold" in result.err and "Predicting" not in result.out
    for row in ("threshold 0.5, views identity", "tuned, nested across folds", "tuned, on the same tiles"):
        assert len(numbers(result.out, row)) == 8
    assert re.search(r"^Gain of tuning: [+-]0\.\d{4} mIoU \(95 % interval", result.out, re.M)
    assert re.search(rf"^Decision: views \w+,.* threshold 0\.\d+.* → {runs}/{name}/decision\.json$", result.out, re.M)
    decision = json.loads((runs / name / "decision.json").read_text())
    for row in decision["elements"]:
        gain, verdict = re.escape(f"{row['gain']['miou']:+.4f}"), "kept" if row["kept"] else "left out"
        assert re.search(rf"^ +{row['element']} .*{gain} .*{verdict} *$", result.out, re.M)
    following = re.search(r"^Next: marsls (submit .*)$", result.out, re.M)[1]
    succeed(*shlex.split(following), "--out", runs / "a.zip")


def test_an_interrupted_tune_leaves_the_earlier_decision(again, monkeypatch):
    name, runs = again
    path = runs / name / "decision.json"
    succeed("tune", "--for", "published", "--run", name, "--runs", runs)
    before, files = path.read_bytes(), set((runs / name).rglob("*"))

    def interrupted(*_):
        raise KeyboardInterrupt

    # The last moment before the new decision takes the place of the old one.
    monkeypatch.setattr(os, "replace", interrupted)
    assert marsls("tune", "--for", "published", "--run", name, "--runs", runs).code == 130
    assert path.read_bytes() == before and set((runs / name).rglob("*")) == files
    monkeypatch.undo()
    # Nothing is predicted again.
    assert "Predicting" not in succeed("tune", "--for", "published", "--run", name, "--runs", runs).err


def test_tune_with_one_fold_says_that_it_is_optimistic(again):
    name, runs = again
    result = succeed("tune", "--for", "published", "--run", name, "--runs", runs, "--folds", "1")
    assert "There is one fold only, so the tuned figure is optimistic" in result.out
    assert "tuned, nested across folds" not in result.out and "nested across halves of the fold" in result.out


def zip_masks(path):
    """Return the masks of a zip, read with nothing of this project."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: tifffile.imread(io.BytesIO(archive.read(name))) for name in archive.namelist()}


def test_submit(submitted, predicted):
    masks = zip_masks("submissions/default.zip")
    assert sorted(masks) == sorted(path.name for path in Path("data/test/images").iterdir())
    for name, mask in masks.items():
        assert mask.dtype == np.uint8 and mask.shape == (32, 32)
        np.testing.assert_array_equal(mask, decided_masks(predicted[1])[name])
    # The sizes of the decision matter here.
    assert any((mask != (predicted[1][name] >= np.float32(0.46))).any() for name, mask in masks.items())
    ratio = np.mean(list(masks.values()))
    assert f"submissions/default.zip: 5 masks, {ratio:.1%} landslide, verified.\n" in submitted.out
    assert "Expected mIoU on tiles like those of training: 0." in submitted.out
    assert (
        re.search(r"^Run default, fold 0: 5 tiles in \d view", submitted.err, re.M)
        and "Run default, fold" not in submitted.out
    )


def test_manifest_and_ledger(submitted):
    digest = hashlib.sha256(Path("submissions/default.zip").read_bytes()).hexdigest()
    manifest = json.loads(Path("submissions/default.json").read_text())
    weights = {k: hashlib.sha256(Path(f"runs/default/fold_{k}/best.weights.h5").read_bytes()).hexdigest() for k in "01"}
    assert manifest["runs"]["default"]["folds"] == weights
    assert (manifest["sha256"], manifest["tiles"], manifest["folds"]) == (digest, 5, [0, 1])
    assert {key: manifest[key] for key in (*DECISION, "weights", "seen_in_training")} == {
        **DECISION,
        "weights": {"default": 1.0},
        "seen_in_training": 0,
    }
    with open("submissions/ledger.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["zip"], row["sha256"], row["runs"], row["folds"]) == ("default.zip", digest, "default", "0 1")
    assert (row["views"], row["threshold"], row["tiles"]) == ("flips", "0.46", "5")
    assert float(row["expected_miou"]) == manifest["expected"]["miou"]
    assert [float(row["low"]), float(row["high"])] == manifest["expected"]["interval"]
    decision = json.loads(Path("runs/default/decision.json").read_text())
    assert manifest["decision"] == decision and manifest["marsls_keras"] == __version__
    assert (
        manifest["runs"]["default"]["data"] == json.loads(Path("runs/default/fingerprint.json").read_text())["sha256"]
    )
    assert re.fullmatch("[0-9a-f]{64}", manifest["images_sha256"])


def test_submit_json_twice_gives_the_same_bytes(submitted, tmp_path):
    result = succeed("submit", "--out", tmp_path / "new" / "b.zip", "--json")
    shown = strict_json(result.out)
    assert shown["path"] == str(tmp_path / "new" / "b.zip")
    assert shown["sha256"] == hashlib.sha256(Path("submissions/default.zip").read_bytes()).hexdigest()
    assert {key: value for key, value in shown.items() if key != "path"} == json.loads(
        (tmp_path / "new" / "b.json").read_text()
    )
    assert (tmp_path / "new" / "b.zip").read_bytes() == Path("submissions/default.zip").read_bytes()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        ".ledger.csv.lock",
        "b.json",
        "b.zip",
        "ledger.csv",
    ]


def test_submit_untuned_says_so(again, tmp_path):
    name, runs = again
    result = succeed("submit", "--run", name, "--runs", runs, "--out", tmp_path / "a.zip")
    assert f"Not tuned: threshold 0.5, views identity. marsls tune --run {name} may find better." in result.err
    assert "Expected" not in result.out


def test_submit_training_tiles_are_left_to_other_folds(again, tmp_path):
    name, runs = again
    result = succeed("submit", "--run", name, "--runs", runs, "--images", "data/train", "--out", tmp_path / "a.zip")
    assert "12 of 12 images were training tiles of some folds" in result.err
    masks = zip_masks(tmp_path / "a.zip")
    with np.load(runs / name / "fold_0" / "oof.npz") as arrays:
        pairs = [
            (f"{Path(id).name}.tif", view)
            for id, view in zip(arrays["ids"], arrays["view_identity"], strict=True)
            if "train/" in id
        ]
    assert pairs
    for file, view in pairs:  # out-of-fold figures are kept in half precision
        assert (masks[file] != (view >= 0.5)).mean() < 0.01


def test_ensemble_of_two_runs(again, tmp_path):
    name, runs = again
    shutil.copytree(runs / name, runs / "twin")
    both = ["--run", name, "--run", "twin", "--runs", runs]
    tuned = succeed("tune", "--for", "published", *both)
    assert json.loads((runs / f"{name}+twin" / "decision.json").read_text())["runs"] == [name, "twin"]
    following = re.search(r"^Next: marsls (submit .*)$", tuned.out, re.M)[1]
    succeed(*shlex.split(following), "--out", tmp_path / "both.zip")
    assert set(json.loads((tmp_path / "both.json").read_text())["runs"]) == {name, "twin"}
    succeed("tune", "--for", "published", "--run", name, "--runs", runs)
    succeed("submit", "--run", name, "--runs", runs, "--out", tmp_path / "one.zip")
    assert (tmp_path / "both.zip").read_bytes() == (tmp_path / "one.zip").read_bytes()  # the mean of a run and its copy


def test_score(submitted):
    truth, masks = test_masks(), zip_masks("submissions/default.zip")
    expected = scores([truth[name] for name in sorted(masks)], [masks[name] for name in sorted(masks)])
    result = strict_json(succeed("score", "submissions/default.zip", "--masks", "data/test/masks", "--json").out)
    assert result["scores"] == pytest.approx(expected)
    assert (result["tiles"], result["zip"]) == (5, "submissions/default.zip")
    per_tile = {tile["name"]: tile for tile in result["per_tile"]}
    assert set(per_tile) == set(masks)
    for name, tile in per_tile.items():
        assert {key: tile[key] for key in FIELDS} == pytest.approx(scores([truth[name]], [masks[name]]))

    table = succeed("score", "submissions/default.zip", "--masks", "data/test", "--worst", 2)
    assert numbers(table.out, "pooled") == pytest.approx(list(expected.values()), abs=1e-4)
    worst = sorted(per_tile, key=lambda name: per_tile[name]["miou"])
    assert [name for name in worst if name in table.out] == worst[:2]
    assert table.err == ""


def test_evaluate_out_of_fold(decided):
    result = strict_json(succeed("evaluate", "default", "--json").out)
    truth, predicted = {}, {}
    for fold in (0, 1):
        with np.load(f"runs/default/fold_{fold}/oof.npz") as arrays:
            views = [
                arrays[f"view_{name}"].astype(np.float32)
                for name in ("identity", "horizontal_flip", "vertical_flip", "rot180")
            ]
            mean = expit(np.mean([logit(np.clip(view, 2**-11, 1 - 2**-11)) for view in views], axis=0))
            for i, id in enumerate(arrays["ids"]):
                truth[str(id)] = tifffile.imread(Path("data", id.split("/")[0], "masks", f"{Path(id).name}.tif"))
                predicted[str(id)] = by_scikit_image(mean[i] >= np.float32(0.46), 9, 4)
    assert (result["tiles"], result["views"], result["threshold"], result["folds"]) == (16, "flips", 0.46, [0, 1])
    assert any(mask.any() for mask in predicted.values())
    assert result["scores"] == pytest.approx(scores(list(truth.values()), list(predicted.values())), abs=1e-6)
    assert {tile["tile"] for tile in result["per_tile"]} == set(truth)
    for tile in result["per_tile"]:
        alone = scores([truth[tile["tile"]]], [predicted[tile["tile"]]])
        assert tile["iou_bg"] == pytest.approx(alone["iou_bg"])
    low, high = result["interval"]
    assert 0 <= low <= result["scores"]["miou"] <= high <= 1


def test_evaluate_test_split(predicted):
    _, probability = predicted
    truth = test_masks()
    result = strict_json(succeed("evaluate", "default", "--split", "test", "--json").out)
    expected = scores(
        [truth[name] for name in sorted(truth)], [decided_masks(probability)[name] for name in sorted(truth)]
    )
    assert (result["split"], result["tiles"]) == ("test", 5)
    assert result["scores"] == pytest.approx(expected)
    table = succeed("evaluate", "default", "--split", "test", "--worst", 1)
    assert "default on 5 tiles of test, views flips, threshold 0.46" in table.out
    assert numbers(table.out, "pooled")[0] == pytest.approx(expected["miou"], abs=1e-4)
    worst = min(result["per_tile"], key=lambda tile: tile["miou"])["tile"]
    assert [tile["tile"] for tile in result["per_tile"] if tile["tile"] in table.out] == [worst]


def test_data_that_were_moved(trained, tmp_path):
    shutil.copytree("data", tmp_path / "moved")
    shutil.copytree("runs/default", tmp_path / "runs" / "default")
    path = tmp_path / "runs" / "default" / "fingerprint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_root": str(tmp_path / "gone")}))
    for command in (["evaluate", "default"], ["tune"], ["report", "default"]):
        lost = marsls(*command, "--runs", tmp_path / "runs")
        assert lost.code == 2 and f"{tmp_path / 'gone'}" in lost.err and "--data" in lost.err
        succeed(*command, "--runs", tmp_path / "runs", "--data", tmp_path / "moved")
    lost = marsls("submit", "--runs", tmp_path / "runs", "--out", tmp_path / "a.zip")
    assert lost.code == 2 and f"{tmp_path / 'gone'}" in lost.err and "--images" in lost.err
    succeed("submit", "--runs", tmp_path / "runs", "--out", tmp_path / "a.zip", "--images", tmp_path / "moved/test")


def test_predict(predicted):
    result, probability = predicted
    names = sorted(path.name for path in Path("data/test/images").iterdir())
    for kind, dtype in (("probability", "float32"), ("mask", "uint8")):
        assert sorted(path.name for path in Path("predicted", kind).iterdir()) == names
        for name in names:
            with rasterio.open(f"data/test/images/{name}") as image, rasterio.open(f"predicted/{kind}/{name}") as made:
                assert (made.count, made.dtypes[0], made.shape) == (1, dtype, (32, 32))
                assert made.crs == image.crs and made.crs is not None
                assert made.transform == image.transform and made.bounds == image.bounds
    for name in names:
        assert 0 <= probability[name].min() < probability[name].max() <= 1
        np.testing.assert_array_equal(tifffile.imread(f"predicted/mask/{name}"), decided_masks(probability)[name])
    ratio = np.mean(list(decided_masks(probability).values()))
    lines = f"5 tiles to predicted/probability and predicted/mask, {ratio:.1%} landslide.\n"
    lines += "predicted/probability.tif\npredicted/mask.tif\n"
    assert result.out == lines + "Next: open them in a GIS such as QGIS.\n"


def test_predict_mosaic(predicted):
    for kind in ("probability", "mask"):
        with rasterio.open(f"predicted/{kind}.tif") as mosaic:
            whole = mosaic.read(1)
            covered = np.zeros(whole.shape, bool)
            for path in Path("predicted", kind).iterdir():
                with rasterio.open(path) as tile:
                    assert tile.crs == mosaic.crs
                    row, col = mosaic.index(*tile.xy(0, 0))
                    window = np.s_[row : row + 32, col : col + 32]
                    np.testing.assert_array_equal(whole[window], tile.read(1))
                    covered[window] = True
            empty = np.isnan(whole) if kind == "probability" else whole == 255
            np.testing.assert_array_equal(empty, ~covered)
            assert not covered.all()  # else this test would say little


def test_predict_is_the_mean_of_the_folds(again, tmp_path):
    name, runs = again
    for folds in ("0", "1", "0,1"):
        shown = succeed(
            "predict",
            name,
            "--runs",
            runs,
            "--images",
            "data/test/images",
            "--out",
            tmp_path / folds,
            "--folds",
            folds,
            "--json",
        )
        assert strict_json(shown.out)["tiles"] == 5
        assert not (tmp_path / folds / "mask.tif").exists()
    for path in (tmp_path / "0,1" / "probability").iterdir():
        one, other = (tifffile.imread(tmp_path / fold / "probability" / path.name) for fold in "01")
        assert np.abs(one - other).max() > 1e-3
        np.testing.assert_allclose(tifffile.imread(path), (one + other) / 2, atol=1e-6)


def test_predict_challenge_tiles_with_a_run_on_mmls_v2(again, tmp_path):
    name, runs = again
    succeed("synth", tmp_path / "raw", "--release", "challenge", "--size", 32, "--train", 12, "--val", 4, "--test", 5)
    for source in (Path("data"), tmp_path / "raw"):
        succeed("predict", name, "--runs", runs, "--images", source / "test", "--out", tmp_path / "out" / source.name)
    whole = [path.name for path in (tmp_path / "raw/test/images").iterdir() if tifffile.imread(path).min() > -1e30]
    assert len(whole) == 4  # of the fifth the slope ends before its border, and the releases tell so in different ways
    for name in whole:
        raw, canonical = (
            tifffile.imread(tmp_path / "out" / source / "probability" / name) for source in ("raw", "data")
        )
        np.testing.assert_allclose(raw, canonical, atol=1e-4)


def test_report(again, tmp_path):
    name, runs = again
    result = succeed("report", name, "--runs", runs)
    assert result.out == f"{runs / name / 'report.html'}\n"
    page = (runs / name / "report.html").read_text(encoding="utf-8")
    assert page.lstrip().startswith("<!doctype html>") or page.lstrip().startswith("<!DOCTYPE html>")
    assert name in page and 'src="http' not in page
    shutil.copytree(runs / name, runs / "twin")
    succeed("report", name, "twin", "--runs", runs, "--out", tmp_path / "both.html")
    both = (tmp_path / "both.html").read_text(encoding="utf-8")
    assert name in both and "twin" in both


def test_the_report_has_the_leaderboards_answers(again, submitted, tmp_path, monkeypatch):
    name, runs = again
    # No line has a score.
    assert "<h2>Leaderboard</h2>" not in page_of(runs / name, succeed("report", name, "--runs", runs))
    ledger = Path(shutil.copy("submissions/ledger.csv", tmp_path / "mine.csv"))
    succeed("ledger", "add", "submissions/default.zip", "--phase", 1, "--score", 0.4321, "--ledger", ledger)
    page = page_of(runs / name, succeed("report", name, "--runs", runs, "--ledger", ledger))
    assert "<h2>Leaderboard</h2>" in page and "<td>default.zip</td>" in page and "<b>0.4321</b>" in page
    before = snapshot(runs)
    missing = marsls("report", name, "--runs", runs, "--ledger", tmp_path / "none.csv")
    assert (
        missing.code == 2 and f"There is no ledger {tmp_path / 'none.csv'}" in missing.err and snapshot(runs) == before
    )


def page_of(run, result):
    assert result.out == f"{run / 'report.html'}\n"
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["train", "--help"], ["check", "data"], ["synth", "made", "--size", "32"]]
)
def test_tensorflow_is_imported_only_where_needed(home, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    os.symlink(home / "data", "data")
    packages, result = imported(*arguments)
    assert result.code == 0 and "typer" in packages
    assert not packages & {"tensorflow", "keras", "jax", "matplotlib"}


def test_score_does_without_tensorflow(submitted):
    packages, result = imported("score", "submissions/default.zip", "--masks", "data/test/masks")
    assert result.code == 0 and "zipfile" in packages
    assert not packages & {"tensorflow", "keras"}


def test_version_and_help():
    assert process("--version") == (0, f"marsls-keras {__version__}\n", "")
    result = process("--help", COLUMNS="100")
    assert result.code == 0 and result.err == ""
    assert all(re.search(rf"^\W*{command} ", result.out, re.M) for command in COMMANDS)
    assert process("-h", COLUMNS="100") == result


def test_without_arguments():
    result = process()
    assert result.code == 2
    assert "Usage: marsls [OPTIONS] COMMAND" in result.out + result.err and "synth" in result.out + result.err


def test_the_console_script(tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "torch"}))  # what another project may have left
    environment = {
        key: value for key, value in os.environ.items() if key not in ("TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND")
    }
    script = Path(sys.executable).with_name("marsls")
    options = {"capture_output": True, "text": True, "env": environment | {"KERAS_HOME": str(tmp_path)}}
    done = subprocess.run([script, "models", "--json"], **options)
    assert (done.returncode, done.stderr) == (0, "")
    assert "unet" in [row["name"] for row in strict_json(done.stdout)]
    succeed("synth", tmp_path / "data", "--size", 32, "--train", 16, "--val", 4, "--test", 0)
    done = subprocess.run(
        [
            script,
            "train",
            "--data",
            tmp_path / "data",
            "--config",
            "unet",
            "--run",
            "new",
            "--set",
            "model.options.dropout=2",
        ],
        **options,
    )
    *progress, said = done.stderr.splitlines()
    assert done.returncode == 2 and said.startswith("Error: model.options: unet needs")
    assert set(progress) <= {"Importing the backend …", "Building the network …"}  # TensorFlow's chatter is held back


def test_a_terminal_that_knows_ascii_only(submitted):
    result = process("score", "submissions/default.zip", "--masks", "data/test", PYTHONIOENCODING="ascii")
    assert result.code == 0 and result.err == ""
    help_page = process("evaluate", "--help", PYTHONIOENCODING="ascii")
    assert help_page.code == 0 and help_page.out.isascii()


def test_names_that_are_no_text(tmp_path):
    succeed("synth", tmp_path / "data", "--size", 32, "--train", 4, "--val", 0, "--test", 0)
    bad = os.fsencode(tmp_path / "data/train/images") + b"/\xff[bold].tif"
    with open(bad, "wb"):
        pass
    table, machine = process("check", tmp_path / "data"), process("check", tmp_path / "data", "--json")
    assert (table.code, table.err, machine.code, machine.err) == (2, "", 2, "")
    assert "[bold].tif: unreadable" in table.out
    assert any("[bold].tif: unreadable" in problem["message"] for problem in strict_json(machine.out)["problems"])


def test_a_keras_backend_that_is_not_there(tmp_path):
    result = process("trial", KERAS_BACKEND="torch")
    assert result.code == 2
    assert "KERAS_BACKEND" in result.err and "tensorflow or jax" in result.err and "Traceback" not in result.err


def test_a_full_disk_behind_stdout(home):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "competition.cli", "check", "data"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr and "Traceback" not in done.stderr
