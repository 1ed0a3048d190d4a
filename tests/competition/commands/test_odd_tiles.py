"""All commands with unusual tiles: a test tile without any data, and tiles that are not square."""

from __future__ import annotations

import shutil
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile

from competition.commands import tune
from competition.commands.submit import SubmitRequest, submit
from competition.commands.train import TrainRequest, train
from marsls_keras.data.decoded.load import load
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.synthetic.mars import write_dataset
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.ensemble import predict_decided
from marsls_keras.inference.prediction_inputs import PredictionInputs
from marsls_keras.runs.run import Run

RECIPE = """\
model: {options: {base_filters: 2, depth: 1}}
data: {folds: 2}
augmentation: {preset: PRESET}
training: {epochs: 1, batch_size: 4, warmup_epochs: 0.5, ema_decay: 0.5}
inference: {batch_size: 4, view_sets: [d4, flips@64]}
"""


def test_a_test_tile_without_data_does_not_block_submit(tiny_run, tmp_path: Path, caplog) -> None:
    images = tmp_path / "images"
    write_dataset(tmp_path / "raw", "challenge", train=1, val=0, test=4, size=32)
    shutil.copytree(tmp_path / "raw" / "test" / "images", images)
    blank = sorted(images.iterdir())[1]
    tifffile.imwrite(
        blank, np.full((32, 32, 7), np.finfo(np.float32).min), photometric="minisblack", planarconfig="contig"
    )
    caplog.clear()
    manifest = submit(SubmitRequest(["tiny"], images, tmp_path / "out.zip", tiny_run.runs))
    assert manifest["release"] == "challenge"
    assert any("no data in any band" in line and str(blank) in line for line in caplog.messages)
    with zipfile.ZipFile(manifest["path"]) as archive:
        assert len(archive.namelist()) == 4
        assert not tifffile.imread(BytesIO(archive.read(blank.name))).any()
    tiles = load(Dataset.from_images(images))
    probability = predict_decided([Run.open(tiny_run.path)], [0], PredictionInputs.alone(tiles), Decision()).probability
    assert [bool(tile.any()) for tile in probability] == [True, False, True, True]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["flips", "rmau_net"])
def test_tiles_that_are_not_square_on_the_whole_road(preset: str, tmp_path: Path, caplog) -> None:
    write_dataset(tmp_path / "data", "challenge", train=8, val=2, test=3, size=64)
    for path in (tmp_path / "data").rglob("*.tif"):
        array = tifffile.imread(path)[:32]
        tifffile.imwrite(
            path, array, photometric="minisblack", **({"planarconfig": "contig"} if array.ndim == 3 else {})
        )
    (tmp_path / "flat.yaml").write_text(RECIPE.replace("PRESET", preset))
    caplog.clear()
    train(TrainRequest(str(tmp_path / "flat.yaml"), data=tmp_path / "data", runs=tmp_path / "runs"))
    decision, _ = tune.tune(["flat"], tmp_path / "runs", None, None, 10, [])
    assert decision.view_set in decision.tuning.view_sets
    manifest = submit(SubmitRequest(["flat"], out=tmp_path / "out.zip", runs=tmp_path / "runs"))
    with zipfile.ZipFile(manifest["path"]) as archive:
        assert [tifffile.imread(BytesIO(archive.read(name))).shape for name in archive.namelist()] == [(32, 64)] * 3
