"""Composites: bands, values and no-data of their sources on one grid, whatever the blocks; and wrong input."""

import re

import numpy as np
import pytest
import rasterio
from helpers.cli import limited, marsls, succeed
from helpers.georeferenced import PLACE, RNG, write
from rasterio.transform import Affine
from scipy import ndimage

from marsls_keras.bands.names import BANDS
from marsls_keras.errors import InputError
from marsls_keras.mapping import stack as stack_module
from marsls_keras.mapping.band_sources import BandSource
from marsls_keras.mapping.grid import NO_DATA
from marsls_keras.mapping.raster import Box, Raster
from marsls_keras.mapping.stack import ORDER, stack

SHAPE = (40, 48)


@pytest.fixture
def sources(tmp_path):
    """All bands but slope on one grid, with values as the challenge has them, and their values."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    values = {name: RNG.uniform(20, 200, SHAPE).astype(np.float32) for name in BANDS if name != "slope"}
    values["dem"] = (300 * np.sin(x / 7) * np.cos(y / 5) - 2000).astype(np.float32)
    files = {name: write(tmp_path / f"{name}.tif", band[None]) for name, band in values.items()}
    return [BandSource(name, str(path), 1) for name, path in files.items()], values


def read(path):
    with rasterio.open(path) as file:
        assert file.descriptions == ORDER == ("thermal", "slope", "dem", "gray", "red", "green", "blue")
        assert file.nodata == NO_DATA and file.dtypes == ("float32",) * 7
        return dict(zip(ORDER, file.read(masked=True).filled(np.nan), strict=True)), file.profile


def test_bands_keep_their_values_and_slope_follows_from_the_dem(sources, tmp_path):
    bands, values = sources
    result = stack(bands, tmp_path / "out" / "composite.tif")
    found, profile = read(tmp_path / "out" / "composite.tif")
    assert profile["transform"] == PLACE and (profile["height"], profile["width"]) == SHAPE and profile["tiled"]
    assert all(np.array_equal(found[name], band) for name, band in values.items())
    weights = np.outer([1, 2, 1], [-1, 0, 1]) / (8 * PLACE.a)
    across, down = (ndimage.correlate(values["dem"].astype(float), each) for each in (weights, weights.T))
    expected = np.degrees(np.arctan(np.hypot(across, down)))
    assert np.allclose(found["slope"][1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-3)
    assert np.isnan(found["slope"][0]).all() and np.isnan(found["slope"][:, -1]).all()
    assert result["bands"]["slope"]["source"] == f"slope of {tmp_path / 'dem.tif'}"
    assert result["bands"]["slope"]["data"] == pytest.approx(38 * 46 / (40 * 48))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["composite.tif"]


def test_a_slope_that_is_given_is_taken(sources, tmp_path):
    given = write(tmp_path / "slope.tif", np.full((1, *SHAPE), 12.5, np.float32))
    stack([*sources[0], BandSource("slope", str(given), 1)], tmp_path / "composite.tif")
    assert (read(tmp_path / "composite.tif")[0]["slope"] == 12.5).all()


def test_a_composite_is_read_as_a_raster_of_the_challenge(sources, tmp_path):
    stack(sources[0], tmp_path / "composite.tif")
    raster = Raster.open(tmp_path / "composite.tif")
    assert raster.release.name == "challenge"
    canonical = raster.read(Box(0, 0, *SHAPE))
    assert np.allclose(canonical[..., BANDS.index("dem")] * 12822 - 5834, sources[1]["dem"], atol=0.01)


def test_blocks_do_not_show(sources, tmp_path, monkeypatch):
    """Also where bands are interpolated in another projection."""
    bands, _ = sources
    # 10 m at 0.135° N; a degree of Mars is 59274.7 m.
    place = Affine(0.0002, 0, 0.083, 0, -0.0002, 0.137)
    turned = write(tmp_path / "t.tif", RNG.random((1, 60, 60)).astype(np.float32), place, "IAU_2015:49900")
    bands = [BandSource("thermal", str(turned), 1) if band.name == "thermal" else band for band in bands]
    stack(bands, tmp_path / "whole.tif")
    monkeypatch.setattr(stack_module, "_BLOCK", 16)
    stack(bands, tmp_path / "blocks.tif")
    whole, blocks = read(tmp_path / "whole.tif")[0], read(tmp_path / "blocks.tif")[0]
    assert np.isfinite(whole["thermal"]).mean() > 0.9
    assert all(np.allclose(whole[name], blocks[name], atol=1e-4, equal_nan=True) for name in ORDER)


def test_the_grid_is_that_of_another_raster_if_asked_for(sources, tmp_path):
    like = write(tmp_path / "like.tif", np.zeros((1, 9, 11), np.uint8), Affine(20, 0, 5040, 0, -20, 7960))
    stack(sources[0], tmp_path / "composite.tif", like)
    found, profile = read(tmp_path / "composite.tif")
    assert profile["transform"] == Affine(20, 0, 5040, 0, -20, 7960) and found["red"].shape == (9, 11)
    red = sources[1]["red"][4:22, 4:26].reshape(9, 2, 11, 2).mean((1, 3))
    assert np.allclose(found["red"], red, atol=1e-4)


def test_no_data_and_ground_beyond_a_source_are_no_data(sources, tmp_path):
    bands, values = sources
    holed = values["gray"].copy()
    holed[5:9, 7:12] = -1
    write(tmp_path / "gray.tif", holed[None], nodata=-1)
    like = write(tmp_path / "like.tif", np.zeros((1, 44, 50), np.uint8), Affine(10, 0, 4980, 0, -10, 8020))
    stack(bands, tmp_path / "composite.tif", like)
    found, _ = read(tmp_path / "composite.tif")
    known = np.pad(holed >= 0, ((2, 2), (2, 0)))
    assert np.array_equal(np.isfinite(found["gray"]), known)
    assert np.array_equal(found["gray"][known], values["gray"][holed >= 0])


def test_a_missing_band_and_a_wrong_number_are_named(sources, tmp_path):
    bands, _ = sources
    with pytest.raises(InputError, match="No raster holds gray.*--band gray=FILE.*found red from .*red.tif"):
        stack([band for band in bands if band.name != "gray"], tmp_path / "composite.tif")
    with pytest.raises(InputError, match=r"red.tif has 1 band\(s\), and no band 4"):
        stack([band._replace(band=4) if band.name == "red" else band for band in bands], tmp_path / "composite.tif")
    assert not (tmp_path / "composite.tif").exists()


def test_a_source_elsewhere_or_without_data_leaves_no_file(sources, tmp_path):
    bands, values = sources
    write(tmp_path / "gray.tif", values["gray"][None], Affine(10, 0, 900_000, 0, -10, 8000))
    with pytest.raises(InputError, match=r"gray.tif does not overlap the grid"):
        stack(bands, tmp_path / "composite.tif")
    write(tmp_path / "gray.tif", np.full((1, *SHAPE), -1, np.float32), nodata=-1)
    with pytest.raises(InputError, match=r"gray.tif has no data on the grid .*so gray is empty"):
        stack(bands, tmp_path / "composite.tif")
    assert [path.name for path in tmp_path.iterdir() if "composite" in path.name or "slope" in path.name] == []


def test_a_raster_that_is_read_is_not_written(sources, tmp_path):
    before = (tmp_path / "red.tif").read_bytes()
    with pytest.raises(InputError, match="is one of the rasters that are read"):
        stack(sources[0], tmp_path / "red.tif")
    assert (tmp_path / "red.tif").read_bytes() == before


def test_the_command(sources, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gray.tif").rename("ctx.tif")
    files = ["red.tif", "green.tif", "blue.tif", "dem.tif", "thermal.tif"]
    result = marsls("stack", *files, "ctx.tif", "-o", "composite.tif")
    assert result.code == 2 and "--band NAME=ctx.tif:1" in result.err
    shown = succeed("stack", *files, "--band", "gray=ctx.tif", "-o", "composite.tif").out
    assert "48 x 40 pixels of 10 x 10 m" in shown and "slope of dem.tif" in shown
    assert "Next: marsls tile composite.tif" in shown
    assert np.array_equal(read("composite.tif")[0]["gray"], sources[1]["gray"])
    again = marsls("stack", *files, "--band", "gray=ctx.tif", "-o", "composite.tif")
    assert again.code == 2 and "composite.tif is there already" in again.err
    succeed("stack", *files, "--band", "gray=ctx.tif", "-o", "composite.tif", "--overwrite", "--json")
    bare = write(tmp_path / "bare_gray.tif", sources[1]["gray"][None], crs=None)
    result = marsls("stack", *files, bare, "-o", "other.tif")
    assert result.code == 2 and "has no coordinate system" in result.err


@pytest.mark.slow
def test_a_full_disk_names_the_output_and_leaves_nothing(sources, tmp_path):
    files = [source.path for source in sources[0]]
    result = limited("stack", *files, "-o", tmp_path / "out" / "composite.tif", size=9000)
    assert result.code == 1 and re.search(r"Could not write .*composite.tif: \S", result.err), result.err
    assert list((tmp_path / "out").iterdir()) == []
