"""All commands on the datasets of Earth, through the real `main`."""

from __future__ import annotations

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import yaml
from helpers.cli import marsls

RECIPE = """\
model: {options: {base_filters: 2, depth: 1}}
data: {cv: holdout, holdout: 0.3, normalization: {percentiles: [1, 99]}}
augmentation: {preset: none}
training: {epochs: 1, batch_size: 4, warmup_epochs: 0, ema_decay: null}
inference: {batch_size: 4, view_sets: [identity, flips]}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder that holds the recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("tiny.yaml").write_text(RECIPE)
    return tmp_path


def done(*arguments) -> str:
    result = marsls(*arguments)
    assert result.code == 0, result.err
    return result.out


def refused(*arguments) -> str:
    result = marsls(*arguments)
    assert result.code == 2 and "Error: " in result.err, result
    return result.err


@pytest.mark.slow
def test_landslide4sense_from_check_to_report() -> None:
    done("synth", "l4s", "--release", "landslide4sense", "--size", 32, "--train", 14, "--val", 6, "--test", 4)
    checked = json.loads(done("check", "l4s", "--json"))
    assert (checked["release"], checked["size"], checked["problems"]) == ("landslide4sense", [32, 32], [])
    assert {name: split["tiles"] for name, split in checked["splits"].items()} == {"train": 14, "val": 6, "test": 4}
    assert list(checked["splits"]["train"]["bands"])[:3] == ["coastal", "blue", "green"]
    assert "Next: marsls tune" in done("train", "--config", "tiny.yaml", "--data", "l4s")
    splits = json.loads(Path("runs/tiny/splits.json").read_text())
    assert (splits["cv"], splits["folds"], sum(tile["fold"] == 0 for tile in splits["tiles"])) == ("holdout", 1, 6)
    assert len(json.loads(Path("runs/tiny/fold_0/normalization.json").read_text())["bands"]) == 14
    out = done("tune", "--for", "published", "--run", "tiny")
    assert "Decision:" in out and "Next" not in out  # there is nothing to submit to
    assert json.loads(done("evaluate", "tiny", "--split", "test", "--json"))["tiles"] == 4
    page = Path(done("report", "tiny").strip()).read_text()
    assert "a random share" in page and "landslide4sense" in page
    assert "CodaBench takes masks of the Mars-LS challenge only" in refused("submit", "--run", "tiny")
    done("predict", "tiny", "--images", "l4s/TestData", "--out", "out")
    assert sorted(path.name for path in Path("out/mask").iterdir()) == [f"image_{i}.tif" for i in range(1, 5)]
    assert tifffile.imread("out/mask/image_1.tif").shape == (32, 32)


@pytest.mark.slow
def test_training_from_disk_gives_what_training_in_memory_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARSLS_CACHE", str(Path("cache").absolute()))
    done("synth", "l4s", "--release", "landslide4sense", "--size", 32, "--train", 12, "--val", 0, "--test", 3)
    for cache in ("memory", "disk"):
        settings = ["--set", f"data.cache={cache}", "--set", "training.deterministic=true"]
        done("train", "--config", "tiny.yaml", "--data", "l4s", "--run", cache, *settings)
    metrics = [json.loads(Path(f"runs/{cache}/fold_0/metrics.json").read_text()) for cache in ("memory", "disk")]
    assert metrics[0]["weights_sha256"] == metrics[1]["weights_sha256"] and metrics[0]["counts"] == metrics[1]["counts"]
    assert Path("runs/memory/fingerprint.json").read_text() == Path("runs/disk/fingerprint.json").read_text()
    assert [len(list(path.glob("*.bin"))) for path in Path("cache").iterdir() if path.is_dir()] == [15]
    scores = [
        json.loads(done("evaluate", cache, "--split", "test", "--json"))["scores"] for cache in ("memory", "disk")
    ]
    assert scores[0] == scores[1]
    # The test tiles have an entry of their own.
    assert len([path for path in Path("cache").iterdir() if path.is_dir()]) == 2
    done("report", "disk")


def test_bijie_in_several_sizes() -> None:
    done("synth", "bijie", "--release", "bijie", "--size", 32, "--train", 20, "--val", 0, "--test", 0)
    other = min(Path("bijie/non-landslide/image").iterdir())
    other.write_bytes(imagecodecs.png_encode(np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)))
    message = refused("train", "--config", "tiny.yaml", "--data", "bijie")
    assert f"{other}: 40 x 56 pixels, expected 32 x 32" in message and "data.resize" in message
    assert not Path("runs").exists()
    assert marsls("check", "bijie").code == 2
    assert json.loads(done("check", "bijie", "--resize", 16, "--json"))["size"] == [16, 16]
    done("train", "--config", "tiny.yaml", "--data", "bijie", "--set", "data.resize=16")
    done("predict", "tiny", "--images", "bijie/non-landslide", "--out", "out")
    for kind in ("mask", "probability"):
        assert tifffile.imread(f"out/{kind}/{other.stem}.tif").shape == (40, 56)
    done("synth", "nepal", "--release", "nepal", "--size", 32, "--train", 4, "--val", 2, "--test", 3)
    # Nepal is RGB as well.
    assert json.loads(done("evaluate", "tiny", "--data", "nepal", "--split", "test", "--json"))["tiles"] == 3
    done("synth", "mars", "--size", 32, "--train", 4, "--val", 0, "--test", 2)
    assert "holds tiles of mmls_v2, but the run was trained on bijie" in refused(
        "predict", "tiny", "--images", "mars/test", "--out", "elsewhere"
    )
    config = yaml.safe_load(Path("runs/tiny/config.yaml").read_text())
    assert (config["data"]["resize"], config["data"]["cv"], config["data"]["holdout"]) == (16, "holdout", 0.3)


def test_no_regions_of_nepal() -> None:
    done("synth", "nepal", "--release", "nepal", "--size", 32, "--train", 8, "--val", 3, "--test", 2)
    message = refused("train", "--config", "tiny.yaml", "--data", "nepal", "--set", "data.cv=geographic")
    assert "data.cv geographic needs to know where tiles lie" in message and not Path("runs").exists()


WINDOWS = """\
model: {options: {base_filters: 2, depth: 2}}
data: {cv: holdout, holdout: 0.3, sampling: windows, window_sizes: [48]}
training: {epochs: 1, batch_size: 4, warmup_epochs: 0, ema_decay: null}
inference: {batch_size: 4, views: flips@48, view_sets: [identity, flips@48]}
"""


@pytest.mark.slow
@pytest.mark.parametrize("release", ["landslide4sense", "bijie"])
def test_a_recipe_of_windows_falls_back_to_tiles_that_lie_nowhere(release: str) -> None:
    """Tiles whose names tell no neighbours: windows larger than they are would be three quarters empty."""
    Path("windows.yaml").write_text(WINDOWS)
    done("synth", "data", "--release", release, "--size", 32, "--train", 14, "--val", 6, "--test", 4)
    settings = ["--set", "data.resize=32"] if release == "bijie" else []
    trained = marsls("train", "--config", "windows.yaml", *settings)
    assert trained.code == 0, trained.err
    note = "do not tell which lie side by side, so training sees single tiles instead of windows of 48 pixels"
    assert (trained.out + trained.err).count(note) == 1
    fold = Path("runs/windows/fold_0")
    assert json.loads((fold / "environment.json").read_text())["window_sides"] == []
    log = (fold / "log.txt").read_text()
    assert "windows of" not in log and "4 tiles a step" in log
    tuned = marsls("tune", "--for", "region", "--run", "windows")
    assert tuned.code == 0 and "without views flips@48" in tuned.err + tuned.out
    (decision,) = Path("runs/windows").glob("decision*.json")
    assert json.loads(decision.read_text())["views"] in ("identity", "flips")
    page = Path(done("report", "windows").strip()).read_text()
    assert "windows of 48" not in page


def test_windows_within_a_tile_stay_windows_wherever_it_lies() -> None:
    Path("windows.yaml").write_text(
        WINDOWS.replace("window_sizes: [48]", "window_sizes: [16]").replace("flips@48", "flips")
    )
    done("synth", "data", "--release", "landslide4sense", "--size", 32, "--train", 8, "--val", 4, "--test", 1)
    trained = marsls("train", "--config", "windows.yaml")
    assert trained.code == 0 and "side by side" not in trained.out + trained.err
    assert json.loads(Path("runs/windows/fold_0/environment.json").read_text())["window_sides"] == [16]
    assert "windows of 16 pixels" in Path("runs/windows/fold_0/log.txt").read_text()
