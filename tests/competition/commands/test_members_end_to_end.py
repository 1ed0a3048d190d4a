"""The best of each set of weights as members of their own: from a training that keeps them to tune, submit, predict and evaluate."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from competition.cli import main
from marsls_keras.models import build_model
from marsls_keras.runs.run import Run

SETS = ("last", "ema")


@pytest.fixture(scope="module")
def trained(tiny_run, tmp_path_factory) -> Path:
    """Train both folds of the tiny recipe, and keep the best of each set; return the folder of runs."""
    runs = tmp_path_factory.mktemp("members") / "runs"
    named = ["--config", tiny_run.recipe, "--data", tiny_run.data, "--runs", runs, "--run", "r"]
    assert main(["train", *map(str, named), "--set", "training.keep_each=true", "--set", "training.deterministic=false"]) == 0
    return runs


@pytest.fixture
def runs(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def own_file(runs: Path, fold: int, name: str) -> Path:
    """Return the file of a set of weights, which is that of the best of all if it was this set."""
    folder = runs / "r" / f"fold_{fold}"
    best = json.loads((folder / "metrics.json").read_text())["best_weights"]
    return folder / ("best.weights.h5" if name == best else f"best.{name}.weights.h5")


def probability(runs: Path, fold: int, name: str, images: np.ndarray) -> np.ndarray:
    """Predict images (N, H, W, 7) with nothing but Keras, NumPy and a file of weights."""
    known = json.loads((runs / "r" / f"fold_{fold}" / "normalization.json").read_text())
    model = build_model("unet", bands=7, base_filters=2, depth=1)
    model.load_weights(own_file(runs, fold, name))
    inputs = (images - np.array(known["mean"])) / np.array(known["std"])
    return 1 / (1 + np.exp(-np.asarray(model(inputs.astype(np.float32)), np.float64)[..., 0]))


def read(files: list[Path]) -> np.ndarray:
    return np.stack([tifffile.imread(path) for path in files])


def test_the_best_of_each_set_lie_in_the_fold(trained):
    for fold in (0, 1):
        folder = trained / "r" / f"fold_{fold}"
        with open(folder / "history.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        metrics = json.loads((folder / "metrics.json").read_text())
        other = "last" if metrics["best_weights"] == "ema" else "ema"
        assert {path.name for path in folder.glob("*.h5")} == {"best.weights.h5", f"best.{other}.weights.h5"}
        assert {path.name for path in folder.glob("*.npz")} == {"oof.npz", f"oof.{other}.npz"}
        assert sorted(metrics["each"]) == sorted(SETS)
        for name, found in metrics["each"].items():
            scores = [float(row[f"miou_{name}"]) for row in rows]
            assert found["best_epoch"] == int(np.argmax(scores)) and found["scores"]["miou"] == pytest.approx(max(scores), abs=1e-12)
            assert found["weights_sha256"] == digest(own_file(trained, fold, name))
        best = metrics["each"][metrics["best_weights"]]
        assert best == {key: metrics[key] for key in best}


def test_tune_and_submit_with_both(runs, tmp_path, capsys):
    where = ["--runs", str(runs)]
    plain = {path: digest(path) for path in (runs / "r").glob("fold_*/oof.npz")}
    members = ["--run", "r@last", "--run", "r@ema"]
    assert main(["tune", "--for", "published", *members, *where, "--views", "identity", "--json"]) == 0
    decision = json.loads(capsys.readouterr().out)
    assert decision == json.loads((runs / "r@last+r@ema" / "decision.json").read_text())
    assert decision["runs"] == ["r@last", "r@ema"] and set(decision["weights"]) == {"r@last", "r@ema"}
    assert "weights" in [row["element"] for row in decision["elements"]]
    files = {f"r@{name}": {str(fold): digest(own_file(runs, fold, name)) for fold in (0, 1)} for name in SETS}
    assert decision["members"] == files
    # The plain decision is that on the mean of both sets, of each tile by the fold that held it out.
    total = np.zeros(4)
    for fold in (0, 1):
        ids = [tile["id"] for tile in json.loads((runs / "r" / "splits.json").read_text())["tiles"] if tile["fold"] == fold]
        data = Run.open(runs / "r").data_root
        images, masks = (read([data / i.split("/")[0] / kind / f"{i.split('/')[1]}.tif" for i in ids]) for kind in ("images", "masks"))
        mean = np.mean([probability(runs, fold, name, images) for name in SETS], axis=0)
        said, true = mean >= 0.5, masks == 1
        total += [(said & true).sum(), (said & ~true).sum(), (~said & true).sum(), (~said & ~true).sum()]
    tp, fp, fn, tn = total
    expected = (tp / (tp + fp + fn) + tn / (tn + fp + fn)) / 2
    assert decision["baseline"]["scores"]["miou"] == pytest.approx(expected, abs=2e-3)  # probabilities are kept as float16
    assert all(digest(path) == before for path, before in plain.items())
    # Another set of views is added to each cache, and none overwrites another's.
    assert main(["tune", "--for", "published", "--run", "r", *members, *where, "--views", "flips"]) == 0
    for path in (runs / "r").glob("fold_*/oof*.npz"):
        name = path.name.split(".")[1] if path.name != "oof.npz" else json.loads((path.parent / "metrics.json").read_text())["best_weights"]
        with np.load(path) as arrays:
            assert str(arrays["weights"]) == files[f"r@{name}"][path.parent.name[-1]] and "view_horizontal_flip" in arrays.files
    capsys.readouterr()
    assert main(["submit", *members, *where, "--out", str(tmp_path / "both.zip"), "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert {name: run["folds"] for name, run in manifest["runs"].items()} == files and manifest["tiles"] == 4
    # A fold that is trained anew makes the decision one about other weights, of whichever set.
    with open(own_file(runs, 1, "ema"), "ab") as file:
        file.write(b"x")
    assert main(["submit", *members, *where]) == 2
    assert "Run r@ema is not complete:\n  - fold 1 has other weights" in capsys.readouterr().err


def test_predict_and_evaluate_with_one(runs, tmp_path, capsys):
    images = Run.open(runs / "r").data_root / "test" / "images"
    pixels = read(sorted(images.iterdir()))
    for name in SETS:
        assert main(["predict", f"r@{name}", "--runs", str(runs), "--images", str(images), "--out", str(tmp_path / name)]) == 0
        found = read(sorted((tmp_path / name / "probability").iterdir()))
        assert np.abs(found - np.mean([probability(runs, fold, name, pixels) for fold in (0, 1)], axis=0)).max() < 1e-4
        capsys.readouterr()
        assert main(["evaluate", f"r@{name}", "--runs", str(runs), "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        counts = [json.loads((runs / "r" / f"fold_{k}" / "metrics.json").read_text())["each"][name]["counts"] for k in (0, 1)]
        tp, fp, fn, tn = (sum(of_fold[key] for of_fold in counts) for key in ("tp", "fp", "fn", "tn"))
        assert result["run"] == f"r@{name}"
        assert result["scores"]["miou"] == pytest.approx((tp / (tp + fp + fn) + tn / (tn + fp + fn)) / 2, abs=1e-12)
    assert main(["predict", "r@swa", "--runs", str(runs), "--images", str(images), "--out", str(tmp_path / "swa")]) == 2
    assert "Run r was not trained with weights 'swa'. There are: r@last, r@ema." in capsys.readouterr().err
    assert not (tmp_path / "swa").exists()


def test_a_report_of_both(runs, capsys):
    assert main(["report", "r@last", "r@ema", "--runs", str(runs)]) == 0
    path = runs / "r@last" / "report.html"
    assert capsys.readouterr().out.strip() == str(path)
    page = path.read_text()
    for name in SETS:
        assert f"r@{name}" in page
