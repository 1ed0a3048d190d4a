"""Derived bands from the configuration to the zip, with the real commands."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from scipy.special import expit

from competition.cli import main
from competition.commands import predict
from marsls_keras.config import load_config
from marsls_keras.data.synthetic.mars import write_dataset

RECIPE = """\
model: {options: {base_filters: 2, depth: 1}}
data: {folds: 2, bands: [all, aspect_sin, hillshade, tpi_large, canny]}
augmentation: {preset: strong}
training: {epochs: 1, batch_size: 4, warmup_epochs: 0.5, learning_rate: 0.03, ema_decay: null}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("bands")
    write_dataset(root / "data", "challenge", train=12, val=4, test=6, size=32)
    (root / "bands.yaml").write_text(RECIPE)
    options = ["--config", str(root / "bands.yaml"), "--data", str(root / "data"), "--runs", str(root / "runs")]
    assert main(["train", *options]) == 0
    return root


@pytest.mark.slow
def test_a_run_knows_its_bands(trained):
    normalization = json.loads((trained / "runs/bands/fold_0/normalization.json").read_text())
    stored = ["red", "green", "blue", "dem", "slope", "thermal", "gray"]
    assert normalization["bands"] == [*stored, "aspect_sin", "hillshade", "tpi_large", "canny"]
    # Carried: the other component of the aspect and the normal behind the hillshade, whose own statistics come last.
    assert len(normalization["mean"]) == len(normalization["std"]) == 7 + 2 + 3 + 2 + 1
    fingerprint = json.loads((trained / "runs/bands/fingerprint.json").read_text())
    assert "aspect_cos" in fingerprint["bands"]


@pytest.mark.slow
def test_tuned_submitted_scored_and_reported(trained, capsys):
    runs = ["--runs", str(trained / "runs")]
    assert main(["tune", "--for", "published", "--run", "bands", *runs]) == 0
    assert main(["submit", "--run", "bands", "--out", str(trained / "bands.zip"), *runs]) == 0
    assert main(["score", str(trained / "bands.zip"), "--masks", str(trained / "data/test/masks"), "--json"]) == 0
    assert main(["report", "bands", *runs]) == 0
    assert "canny" in (trained / "runs/bands/report.html").read_text()
    assert main(["evaluate", "bands", "--split", "test", "--json", *runs]) == 0
    capsys.readouterr()


@pytest.mark.slow
def test_runs_that_see_other_bands_are_tuned_together_in_any_order(trained, capsys):
    paths = ["--data", str(trained / "data"), "--runs", str(trained / "runs")]
    assert (
        main(["train", "--config", str(trained / "bands.yaml"), "--run", "plain", "--set", "data.bands=all", *paths])
        == 0
    )
    for names in (("plain", "bands"), ("bands", "plain")):
        for path in (trained / "runs").glob("*/fold_*/oof.npz"):
            path.unlink()  # or a run that was tuned before would have its predictions already
        assert (
            main(["tune", "--for", "published", "--run", names[0], "--run", names[1], "--runs", str(trained / "runs")])
            == 0
        ), capsys.readouterr().err
    decisions = [
        json.loads((trained / "runs" / name / "decision.json").read_text()) for name in ("plain+bands", "bands+plain")
    ]
    assert decisions[0]["expected"]["scores"]["miou"] == pytest.approx(
        decisions[1]["expected"]["scores"]["miou"], abs=1e-3
    )


def test_a_prediction_does_not_hang_on_how_many_tiles_are_read_at_once(trained, tmp_path, monkeypatch):
    def predicted(chunk, out):
        monkeypatch.setattr(predict, "_CHUNK", chunk)
        images = ["--images", str(trained / "data/train/images"), "--out", str(out), "--folds", "0"]
        assert main(["predict", "bands", *images, "--runs", str(trained / "runs")]) == 0
        return {path.name: tifffile.imread(path) for path in sorted((out / "probability").iterdir())}

    together, apart = predicted(256, tmp_path / "a"), predicted(5, tmp_path / "b")
    assert list(together) == list(apart) and len(together) == 12
    for name, probability in together.items():
        np.testing.assert_allclose(apart[name], probability, atol=1e-6)
    assert 0 < np.ptp(np.stack(list(together.values()))) < expit(100)


@pytest.mark.parametrize(
    "bands,message",
    [
        (
            "[all, ndvi]",
            "data.bands: ndvi is derived from nir, and the tiles have red, green, blue, dem, slope, thermal, gray.",
        ),
        ("[all, hillshades]", "data.bands: bands must be all, or one or more different ones of red, green"),
        ("[hillshade, hillshade]", "data.bands: bands must be all, or one or more different ones of"),
        ("[]", "data.bands: bands must be all"),
        ("[nir]", "data.bands: the tiles have no band nir. They have red"),
    ],
)
def test_bands_that_there_cannot_be_are_refused_before_a_run_begins(trained, capsys, bands, message):
    options = ["--data", str(trained / "data"), "--runs", str(trained / "none"), "--set", f"data.bands={bands}"]
    assert main(["train", *options]) == 2
    assert message in capsys.readouterr().err and not (trained / "none").exists()


def test_the_terrain_recipe_trains(trained):
    _, config = load_config("terrain", [])
    assert len(config.data.bands) == 9 and config.data.bands[0] == "all"
    shutil.rmtree(trained / "runs_terrain", ignore_errors=True)
    options = ["model.options.base_filters=2", "model.options.depth=1", "data.folds=2", "training.batch_size=4"]
    settings = [word for option in options for word in ("--set", option)]
    paths = ["--data", str(trained / "data"), "--runs", str(trained / "runs_terrain")]
    assert main(["train", "--config", "terrain", "--fold", "0", "--epochs", "1", *paths, *settings]) == 0
    assert len(json.loads((trained / "runs_terrain/terrain/fold_0/normalization.json").read_text())["bands"]) == 15
