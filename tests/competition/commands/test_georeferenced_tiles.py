"""Tiles and masks whose georeferencing does not fit their grid cells."""

from __future__ import annotations

import shutil
from pathlib import Path

import rasterio
from helpers.georeferenced import image, mask, write
from rasterio.transform import Affine

from competition.cli import main


def test_check_shows_a_mask_that_lies_elsewhere_than_its_image(data_root, capsys):
    root, name = data_root(train=4, val=0, test=0), "col00001_row00001.tif"
    write(root / "train" / "images" / name, image())
    write(root / "train" / "masks" / name, mask(), Affine(10, 0, 5030, 0, -10, 7980))
    assert main(["check", str(root)]) == 2
    assert "does not lie where its image" in " ".join(capsys.readouterr().out.split())


def test_mosaics_off_the_grid_are_refused_before_anything_is_predicted(tiny_run, tmp_path, capsys):
    write(tmp_path / "images" / "a.tif", image())
    write(tmp_path / "images" / "b.tif", image(), Affine(10, 0, 5325, 0, -10, 8000))
    command = [
        "predict",
        "tiny",
        "--runs",
        str(tiny_run.runs),
        "--images",
        str(tmp_path / "images"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*command, "--mosaic"]) == 2 and not (tmp_path / "out").exists()
    assert "lies 0.50 pixels to the east" in capsys.readouterr().err


def test_neither_train_nor_evaluate_takes_a_shifted_mask(tiny_run, tmp_path, capsys):
    data = Path(shutil.copytree(tiny_run.data, tmp_path / "data"))
    path = sorted((data / "test" / "masks").iterdir())[0]
    with rasterio.open(data / "test" / "images" / path.name) as file:
        there, crs = file.transform, file.crs
    write(path, mask(), Affine.translation(2 * there.a, 0) @ there, crs)
    runs = ["--runs", str(tiny_run.runs), "--data", str(data)]
    for command in (
        ["evaluate", "tiny", "--split", "test", *runs],
        ["train", "--run", "new", "--config", str(tiny_run.recipe), *runs],
    ):
        assert main(command) == 2
        assert "shifted by 2.00 pixels to the east and 0.00 to the south" in capsys.readouterr().err
    assert not (tiny_run.runs / "new").exists()
