"""Views of windows from tune to submit and predict, and single tiles where names do not tell where they lie."""

import csv
import json
import shutil

import numpy as np
import pytest
import tifffile

from competition.cli import main
from competition.oof import pool_tiles
from marsls_keras.inference.oof import load_oof
from marsls_keras.inference.predict import load_member
from marsls_keras.inference.stitched import predict_tiles
from marsls_keras.training.run_dir import Run


@pytest.fixture
def run(tiny_run, tmp_path) -> Run:
    shutil.copytree(tiny_run.path.parent, tmp_path / "runs")
    return Run.open(tmp_path / "runs" / tiny_run.path.name)


def tune(run: Run, *more: str) -> int:
    return main(["tune", "--run", run.name, "--runs", str(run.path.parent), "--views", "identity", "--views", "identity@64", *more])


def test_tune_offers_windows_and_caches_them_apart(run, capsys):
    assert tune(run, "--json") == 0
    decision = json.loads(capsys.readouterr().out)
    assert list(decision["view_sets"]) == ["identity", "identity@64"]
    tiles = pool_tiles(run)
    index = np.array([i for i, tile in enumerate(run.splits.tiles) if tile["fold"] == 0])
    ids = [tiles.refs[i].id for i in index]
    cached = load_oof(run.fold_path(0) / "oof.npz", ids, run.metrics(0)["weights_sha256"])
    (expected,) = predict_tiles(load_member(run, 0), tiles, index, ["identity@64/32"])
    assert np.abs(cached["identity@64/32"].probability.astype(np.float32) - expected.probability).max() < 1e-3
    assert not np.array_equal(cached["identity@64/32"].probability, cached["identity"].probability)


def test_predict_follows_a_decision_of_windows_and_falls_back_where_there_is_no_grid(run, tmp_path, capsys):
    assert tune(run) == 0
    path = run.path / "decision.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"views": "identity@64", "min_area": 0, "max_hole": 0, "threshold": 0.5}))
    images = run.data_root / "test" / "images"

    def told() -> tuple[str, str]:
        shown = capsys.readouterr()
        said = [line for line in shown.err.splitlines() if "instead of" in line]
        return json.loads(shown.out)["views"], "".join(said)

    def predict(folder, out) -> tuple[str, str]:
        capsys.readouterr()
        there = ["--images", str(folder), "--out", str(tmp_path / out), "--json"]
        assert main(["predict", run.name, "--runs", str(run.path.parent), *there]) == 0
        return told()

    assert predict(images, "windows") == ("identity@64", "")
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for i, file in enumerate(sorted(images.glob("*.tif"))):
        shutil.copy(file, renamed / f"tile{chr(97 + i)}.tif")
    views, said = predict(renamed, "alone")
    assert views == "identity" and "views identity of single tiles instead of identity@64" in said
    # What the manifest and the ledger hold is what was done, and no score that was expected of something else.
    zipped = ["--images", str(renamed), "--out", str(tmp_path / "alone.zip"), "--json"]
    assert main(["submit", "--run", run.name, "--runs", str(run.path.parent), *zipped]) == 0
    assert told()[0] == "identity"
    manifest = json.loads((tmp_path / "alone.json").read_text())
    assert manifest["views"] == "identity" and manifest["expected"] is None
    with open(tmp_path / "ledger.csv", newline="") as file:
        (line,) = csv.DictReader(file)
    assert line["views"] == "identity" and line["expected_miou"] == ""
    first, second = ([tifffile.imread(f) for f in sorted((tmp_path / out / "probability").glob("*.tif"))] for out in ("windows", "alone"))
    assert len(first) == len(second) and max(np.abs(a - b).max() for a, b in zip(first, second, strict=True)) > 1e-4


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ("d9", "There is no set of views 'd9'"),
        ("d4@8", "Views 'd4@8': expected the side of windows in pixels, 32 or more"),
        ("d4@64/65", "Views 'd4@64/65': expected the side of windows"),
    ],
)
def test_views_that_there_are_not_are_refused(run, capsys, views, message):
    assert main(["tune", "--run", run.name, "--runs", str(run.path.parent), "--views", views]) == 2
    assert message in capsys.readouterr().err
    assert not (run.path / "decision.json").exists()
