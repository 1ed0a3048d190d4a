"""Merging tiles: each pixel of the raster is compared with the tile at its map position, written by rasterio."""

import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine, from_origin

from marsls_keras.errors import InputError, RunError
from marsls_keras.inference.geotiff import join_tiles

MARS = "+proj=eqc +lat_ts=0 +lat_0=0 +lon_0=0 +x_0=0 +y_0=0 +R=3396190 +units=m +no_defs"
PIXEL, WEST, NORTH = 232.0, -4_500_000.0, -200_000.0
RNG = np.random.default_rng(0)


def write(
    path: Path, band: np.ndarray, row: int = 0, col: int = 0, crs: str | None = MARS, transform: Affine | None = None
) -> Path:
    """Write a tile whose corner is at a row and column of the joined raster, in pixels."""
    transform = transform or from_origin(WEST + col * PIXEL, NORTH - row * PIXEL, PIXEL, PIXEL)
    options = {"driver": "GTiff", "height": band.shape[0], "width": band.shape[1], "count": 1, "dtype": band.dtype}
    with rasterio.open(path, "w", crs=crs, transform=transform, **options) as file:
        file.write(band, 1)
    return path


def floats(height: int = 32, width: int = 32) -> np.ndarray:
    return RNG.random((height, width), dtype=np.float32)


@pytest.mark.parametrize("size", [(32, 32), (20, 24), (100, 72), (128, 128)])
@pytest.mark.parametrize("kind", [np.float32, np.uint8])
def test_tiles_are_where_their_georeferencing_puts_them(tmp_path, size, kind):
    height, width = size
    # A grid of 3 x 4 with gaps, of which the last row lies half a tile further down; in no particular order.
    places = {
        (0, 0): (0, 0),
        (0, 3): (0, 3 * width),
        (1, 1): (height, width),
        (1, 2): (height, 2 * width),
        (2, 0): (5 * height // 2, 0),
    }
    bands = {cell: (RNG.integers(0, 2, size) if kind is np.uint8 else RNG.random(size)).astype(kind) for cell in places}
    files = [
        write(tmp_path / f"{r}{c}.tif", bands[r, c], *places[r, c]) for r, c in [(1, 2), (0, 0), (2, 0), (0, 3), (1, 1)]
    ]
    expected = np.full((5 * height // 2 + height, 4 * width), np.nan if kind is np.float32 else 255, kind)
    for cell, (row, col) in places.items():
        expected[row : row + height, col : col + width] = bands[cell]

    out = tmp_path / "joined" / "out.tif"
    join_tiles(files, out)
    with rasterio.open(out) as raster:
        assert (
            raster.count == 1
            and raster.dtypes == (np.dtype(kind).name,)
            and raster.crs == rasterio.CRS.from_string(MARS)
        )
        assert raster.transform == from_origin(WEST, NORTH, PIXEL, PIXEL)
        assert np.isnan(raster.nodata) if kind is np.float32 else raster.nodata == 255
        assert raster.compression.name == "deflate"
        assert np.array_equal(raster.read(1), expected, equal_nan=kind is np.float32)
        # And a place on the map holds what the tile there holds.
        x, y = WEST + (width + 5.5) * PIXEL, NORTH - (height + 7.5) * PIXEL
        assert next(raster.sample([(x, y)]))[0] == bands[1, 1][7, 5]
    assert [path.name for path in out.parent.iterdir()] == ["out.tif"]


def test_one_tile_alone(tmp_path):
    band = floats()
    join_tiles([write(tmp_path / "a.tif", band, 3, 4)], tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as raster:
        assert np.array_equal(raster.read(1), band) and raster.transform == from_origin(
            WEST + 4 * PIXEL, NORTH - 3 * PIXEL, PIXEL, PIXEL
        )


@pytest.mark.parametrize(
    "second,message",
    [
        ({"crs": None}, "The tiles cannot be joined: .*b.tif has no coordinate system"),
        (
            {"crs": "EPSG:32633"},
            r"The tiles cannot be joined: .*b.tif has another coordinate system \(EPSG code 32633 ",
        ),
        ({"transform": Affine(10, 1, 0, 1, -10, 0)}, "The tiles cannot be joined: .*b.tif is rotated"),
        (
            {"transform": Affine(10, 0, 0, 0, 10, 0)},
            "The tiles cannot be joined: .*b.tif is south-up; expected north-up",
        ),
    ],
)
def test_tiles_that_cannot_be_joined_are_refused(tmp_path, second, message):
    files = [write(tmp_path / "a.tif", floats()), write(tmp_path / "b.tif", floats(), 0, 32, **second)]
    (tmp_path / "out.tif").write_bytes(b"an earlier raster")
    with pytest.raises(InputError, match=message):
        join_tiles(files, tmp_path / "out.tif")
    assert (tmp_path / "out.tif").read_bytes() == b"an earlier raster"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif", "out.tif"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=re.escape(f"Could not write {tmp_path}/file/out.tif: ")):
        join_tiles([write(tmp_path / "a.tif", floats())], tmp_path / "file" / "out.tif")
