"""Views of windows from tune to submit and predict, and single tiles if names do not contain grid cells."""

import csv
import io
import json
import shutil
import zipfile

import numpy as np
import pytest
import tifffile
from helpers.components import of_regions

from competition.cli import main
from competition.commands.report import _gather
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.load_folder import load_folder, load_with_neighbours
from marsls_keras.inference.member import load_member
from marsls_keras.inference.oof_cache import load_oof
from marsls_keras.inference.sliding_window import predict_tiles
from marsls_keras.runs.run import Run
from marsls_keras.tuning.out_of_fold import pool_tiles


@pytest.fixture
def run(tiny_run, tmp_path) -> Run:
    shutil.copytree(tiny_run.path.parent, tmp_path / "runs")
    return Run.open(tmp_path / "runs" / tiny_run.path.name)


def tune(run: Run, *more: str) -> int:
    return main(
        [
            "tune",
            *(() if "--for" in more else ("--for", "published")),
            "--run",
            run.name,
            "--runs",
            str(run.path.parent),
            "--views",
            "identity",
            "--views",
            "identity@64",
            *more,
        ]
    )


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


@pytest.mark.slow
def test_isolated_windows_see_what_their_fold_held_out_alone(run, capsys):
    assert tune(run, "--for", "region", "--json") == 0
    assert json.loads(capsys.readouterr().out)["isolated"] is True
    tiles = pool_tiles(run)
    index = np.array([i for i, tile in enumerate(run.splits.tiles) if tile["fold"] == 0])
    ids = [tiles.refs[i].id for i in index]
    (expected,) = predict_tiles(load_member(run, 0), tiles.subset(index), np.arange(len(index)), ["identity@64/32"])

    def cached():
        return load_oof(run.fold_path(0) / "oof.npz", ids, run.metrics(0)["weights_sha256"])

    alone = cached()["identity@64/32 isolated"].probability.astype(np.float32)
    assert "identity@64/32" not in cached() and np.abs(alone - expected.probability).max() < 1e-3
    # The report's maps are of the picture, one, all the same.
    assert {ref.raster for ref in _gather(run, None).refs} == {ref.raster for ref in tiles.refs}
    capsys.readouterr()
    assert tune(run, "--json") == 0
    assert json.loads(capsys.readouterr().out)["isolated"] is False
    among = cached()["identity@64/32"].probability.astype(np.float32)
    assert np.array_equal(cached()["identity@64/32 isolated"].probability, alone) and np.abs(alone - among).max() > 1e-3
    assert main(["search", "--for", "region"]) == 2
    assert "--for. It is an option of marsls tune, evaluate" in capsys.readouterr().err


def test_predict_follows_a_decision_of_windows_and_falls_back_where_there_is_no_grid(run, tmp_path, capsys):
    assert tune(run) == 0
    path = run.path / "decision.json"
    changed = json.loads(path.read_text()) | {
        "views": "identity@64",
        "min_area": 5,
        "across_borders": True,
        "threshold": 0.5,
    }
    del changed["sha256"]  # or it would be told that tune did not write it
    path.write_text(json.dumps(changed))
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
    assert "components and holes end at the borders of each" in said
    # What the manifest and the ledger hold is what was done, and no score that was expected of something else.
    zipped = ["--images", str(renamed), "--out", str(tmp_path / "alone.zip"), "--json"]
    assert main(["submit", "--run", run.name, "--runs", str(run.path.parent), *zipped]) == 0
    assert told()[0] == "identity"
    manifest = json.loads((tmp_path / "alone.json").read_text())
    assert manifest["views"] == "identity" and manifest["across_borders"] is False and manifest["expected"] is None
    with open(tmp_path / "ledger.csv", newline="") as file:
        (line,) = csv.DictReader(file)
    assert line["views"] == "identity" and line["expected_miou"] == ""
    first, second = (
        [tifffile.imread(f) for f in sorted((tmp_path / out / "probability").glob("*.tif"))]
        for out in ("windows", "alone")
    )
    assert len(first) == len(second) and max(np.abs(a - b).max() for a, b in zip(first, second, strict=True)) > 1e-4


def decided(run: Run, **keys) -> None:
    """Write a decision by hand, with views of windows and without post-processing."""
    plain = {"runs": [run.name], "folds": [0, 1], "members": {run.name: run.digest([0, 1])}}
    plain |= {"views": "identity@64", "weights": None, "averaging": "probability"}
    (run.path / "decision.json").write_text(json.dumps(plain | {"threshold": 0.5, "min_area": 0, "max_hole": 0} | keys))


def by_hand(run: Run, tiles, index: np.ndarray) -> np.ndarray:
    """Return the mean over the folds that did not train on a tile, with windows that see all of `tiles`."""
    total, times = np.zeros((len(index), *tiles.masks.shape[1:])), np.zeros(len(index))
    for fold in (0, 1):
        (seen,) = predict_tiles(load_member(run, fold), tiles, index, ["identity@64/32"])
        new = [tiles.hashes[i] not in run.splits.training_hashes(fold) for i in index]
        total[new] += seen.probability[new]
        times[new] += 1
    assert times.min() > 0
    return total / times[:, None, None]


def in_the_picture(masks: np.ndarray, cells: np.ndarray, min_area: int, max_hole: int) -> np.ndarray:
    """Return masks (N, H, W) after post-processing of the mosaic of all of them."""
    (height, width), cells = masks.shape[1:], cells - cells.min(0)
    rows, columns = cells.max(0) + 1
    picture, known = np.zeros((2, rows * height, columns * width), bool)
    places = [(slice(r * height, (r + 1) * height), slice(c * width, (c + 1) * width)) for r, c in cells]
    for place, mask in zip(places, masks, strict=True):
        picture[place], known[place] = mask, True
    done = of_regions(picture, min_area, max_hole, known)
    return np.stack([done[place] for place in places])


def predicted(run: Run, images, out) -> dict[str, np.ndarray]:
    assert main(["predict", run.name, "--runs", str(run.path.parent), "--images", str(images), "--out", str(out)]) == 0
    return {file.name: tifffile.imread(file) for file in (out / "probability").glob("*.tif")}


@pytest.mark.slow
def test_windows_of_images_see_labelled_tiles_around_them_where_the_picture_is_the_same(run, tmp_path, capsys):
    decided(run)
    tiles = load_folder(run.data_root, run.config.data)
    index = np.array([i for i, ref in enumerate(tiles.refs) if ref.split == "val"])  # they touch training tiles
    names = [tiles.refs[i].image.name for i in index]
    expected = by_hand(run, tiles, index)
    images = run.data_root / "val" / "images"
    copied = shutil.copytree(images, tmp_path / "copied")
    for folder in (images, copied):
        found = predicted(run, folder, tmp_path / f"of_{folder.name}")
        assert sorted(found) == sorted(names) and "windows see those around them, too" in capsys.readouterr().err
        assert all(np.abs(found[name] - values).max() < 1e-5 for name, values in zip(names, expected, strict=True))
    # One of the images is another one than the data's of its cell: a picture whose grid happens to meet.
    other = tifffile.imread(copied / names[0])
    tifffile.imwrite(
        copied / names[0], np.roll(other, 5, axis=0), photometric="minisblack", planarconfig="contig", metadata=None
    )
    found = predicted(run, copied, tmp_path / "apart")
    assert "Windows see these 4 images only" in capsys.readouterr().err
    own = tiles.subset(index)
    alone = load_with_neighbours(
        folder := Dataset.from_images(copied), folder.tiles, run.config.data.bands, "auto", None
    )
    expected_alone = dict(
        zip([ref.image.name for ref in alone.refs], by_hand(run, alone, np.arange(len(own))), strict=True)
    )
    assert all(np.abs(found[name] - expected_alone[name]).max() < 1e-5 for name in names)
    assert max(np.abs(found[name] - values).max() for name, values in zip(names[1:], expected[1:], strict=True)) > 1e-4


def test_submit_and_evaluate_predict_the_tiles_alone_and_see_those_around(run, tmp_path, capsys):
    tiles = load_folder(run.data_root, run.config.data)
    index = np.array([i for i, ref in enumerate(tiles.refs) if ref.split == "val"])
    probability = by_hand(run, tiles, index)
    cells = np.array([tiles.refs[i].cell for i in index])
    sizes = {"min_area": 30, "max_hole": 60}
    tried = {
        t: in_the_picture(probability >= t, cells, *sizes.values())
        for t in np.quantile(probability, np.linspace(0.05, 0.95, 19)).round(3)
    }
    threshold = float(max(tried, key=lambda t: (tried[t] != (probability >= t)).sum()))
    masks = tried[threshold]
    assert not np.array_equal(masks, probability >= threshold)
    decided(run, threshold=threshold, **sizes, across_borders=True)
    out = tmp_path / "out.zip"
    where = ["--runs", str(run.path.parent)]
    assert (
        main(
            ["submit", "--run", run.name, *where, "--images", str(run.data_root / "val" / "images"), "--out", str(out)]
        )
        == 0
    )
    manifest = json.loads(out.with_suffix(".json").read_text())
    cells = np.array([ref.cell for ref in tiles.refs])
    away = np.abs(cells[:, None] - cells[index]).max(-1).min(-1)  # cells to the nearest validation tile
    assert manifest["surroundings"] == ((away > 0) & (away <= 2)).sum() > 0  # windows have 64 pixels, tiles 32
    with zipfile.ZipFile(out) as archive:
        assert len(archive.namelist()) == len(index)
        for i, mask in zip(index, masks, strict=True):
            assert np.array_equal(tifffile.imread(io.BytesIO(archive.read(tiles.refs[i].image.name))), mask)
    capsys.readouterr()
    assert main(["evaluate", run.name, *where, "--split", "val", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    truth = tiles.masks[index] == 1
    assert found["tiles"] == len(found["per_tile"]) == len(index)
    assert found["scores"]["iou_fg"] == pytest.approx((masks & truth).sum() / (masks | truth).sum())


def test_images_are_predicted_where_the_data_of_the_run_are_gone(run, tmp_path, capsys):
    decided(run)
    images = shutil.copytree(run.data_root / "val" / "images", tmp_path / "images")
    path = run.path / "fingerprint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_root": str(tmp_path / "gone")}))
    assert len(predicted(Run.open(run.path), images, tmp_path / "out")) == 4
    assert "no neighbours of theirs are known in" in capsys.readouterr().err


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
