"""The commands `stack` and `tile`: what they print, what they refuse, and what a full disk leaves."""

import json
import re

import numpy as np
import pytest
import rasterio
from helpers.cli import limited, marsls, strict_json, succeed
from helpers.composites import PLACE, composite, make_ground, write_sources
from helpers.georeferenced import write
from rasterio.transform import Affine


@pytest.fixture
def sources(tmp_path):
    return write_sources(tmp_path)


@pytest.fixture
def files(tmp_path):
    raw, mask = make_ground()
    return composite(tmp_path / "composite.tif", raw), write(tmp_path / "mask.tif", mask[None], PLACE)


def gray(path):
    with rasterio.open(path) as file:
        return file.read(file.descriptions.index("gray") + 1)


def test_stack(sources, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gray.tif").rename("ctx.tif")
    files = ["red.tif", "green.tif", "blue.tif", "dem.tif", "thermal.tif"]
    result = marsls("stack", *files, "ctx.tif", "-o", "composite.tif")
    assert result.code == 2 and "--band NAME=ctx.tif:1" in result.err
    shown = succeed("stack", *files, "--band", "gray=ctx.tif", "-o", "composite.tif").out
    assert "48 x 40 pixels of 10 x 10 m" in shown and "slope of dem.tif" in shown
    assert "Next: marsls tile composite.tif" in shown
    assert np.array_equal(gray("composite.tif"), sources[1]["gray"])
    again = marsls("stack", *files, "--band", "gray=ctx.tif", "-o", "composite.tif")
    assert again.code == 2 and "composite.tif is there already" in again.err
    succeed("stack", *files, "--band", "gray=ctx.tif", "-o", "composite.tif", "--overwrite", "--json")
    bare = write(tmp_path / "bare_gray.tif", sources[1]["gray"][None], crs=None)
    result = marsls("stack", *files, bare, "-o", "other.tif")
    assert result.code == 2 and "has no coordinate system" in result.err


@pytest.mark.slow
@pytest.mark.parametrize(("size", "reason"), [(9000, "not all of it could be written"), (2_000_000, "TIFF")])
def test_a_full_disk_names_the_output_and_leaves_nothing(sources, tmp_path, size, reason):
    """Whether GDAL notices while it writes, or only when it closes the file."""
    files = [source.path for source in sources[0]]
    side = 40 if size == 9000 else 1200
    like = write(tmp_path / "like.tif", np.zeros((1, side, side), np.uint8), Affine(400 / side, 0, 5000, 0, -1, 8000))
    result = limited("stack", *files, "--like", like, "-o", tmp_path / "out" / "composite.tif", size=size)
    assert result.code == 1 and re.search(f"Could not write .*composite.tif: .*{reason}", result.err), result.err
    assert list((tmp_path / "out").iterdir()) == []


def test_tile_and_check(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = succeed("tile", "composite.tif", "--labels", "mask.tif", "-o", "data", "--size", 16, "--seed", 4).out
    assert "Avg_FG (%)" in shown and "The mask has the grid of the composite." in shown
    assert "Next: marsls check data" in shown
    found = strict_json(succeed("check", "data", "--json").out)
    assert found["release"] == "challenge" and found["size"] == [16, 16]
    assert all(problem["severity"] == "warning" for problem in found["problems"])
    record = json.loads((tmp_path / "data" / "partition.json").read_text())
    assert {split: found["splits"][split]["tiles"] for split in ("train", "val", "test")} == {
        split: len(record["tiles"][split]) for split in ("train", "val", "test")
    }
    result = marsls("tile", "composite.tif", "--labels", "mask.tif", "-o", "more", "--shares", "70,20")
    assert result.code == 2 and "--shares 70,20: expected percent of train, val and test" in result.err


@pytest.mark.slow
def test_a_full_disk_leaves_no_half_dataset(files, tmp_path):
    """Also where a file is so small that GDAL writes all of it while it closes it."""
    result = limited("tile", *files[:1], "--labels", files[1], "-o", tmp_path / "data", "--size", 16, size=5000)
    assert result.code == 1 and "not all of it could be written; is the disk full?" in result.err, result.err
    assert not (tmp_path / "data").exists()
