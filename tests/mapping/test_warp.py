"""Resampling to another grid: against functions of longitude and latitude, and against means by NumPy."""

import numpy as np
import pytest
import rasterio
from helpers.georeferenced import MARS, PLACE, RNG, write
from rasterio.crs import CRS
from rasterio.transform import Affine

from marsls_keras.errors import InputError
from marsls_keras.mapping.grid import NO_DATA, RasterGrid, open_raster
from marsls_keras.mapping.warp import Warp

RADIUS = 3396190.0
DEGREE = np.radians(RADIUS)  # metres of a degree on a great circle of Mars


def field(longitude, latitude):
    """A smooth function on the sphere, so without a seam at any meridian."""
    longitude, latitude = np.radians(longitude), np.radians(latitude)
    x, y, z = np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)
    return 100 * x + 60 * y * z + 40 * z


def equirectangular(x, y, middle):
    return x / DEGREE + middle, y / DEGREE


def polar(x, y, sign):
    """Inverse of the polar stereographic projection of a sphere, by hand."""
    away = np.degrees(2 * np.arctan(np.hypot(x, y) / (2 * RADIUS)))
    return np.degrees(np.arctan2(x, -sign * y)), sign * (90 - away)


SIDE = 20_000.0
TARGETS = {
    "equirectangular": (
        MARS,
        Affine(SIDE, 0, -76 * DEGREE, 0, -SIDE, 9 * DEGREE),
        lambda x, y: equirectangular(x, y, 0),
    ),
    "rotated": (
        MARS,
        Affine(SIDE * 0.8, SIDE * 0.6, -76 * DEGREE, SIDE * 0.6, -SIDE * 0.8, 9 * DEGREE),
        lambda x, y: equirectangular(x, y, 0),
    ),
    "south-up": (MARS, Affine(SIDE, 0, -76 * DEGREE, 0, SIDE, 2 * DEGREE), lambda x, y: equirectangular(x, y, 0)),
    "by code": (
        "IAU_2015:49910",
        Affine(SIDE, 0, -76 * DEGREE, 0, -SIDE, 9 * DEGREE),
        lambda x, y: equirectangular(x, y, 0),
    ),
    "across 180°": (
        "+proj=eqc +lon_0=180 +R=3396190 +units=m +no_defs",
        Affine(SIDE, 0, -5 * DEGREE, 0, -SIDE, 9 * DEGREE),
        lambda x, y: equirectangular(x, y, 180),
    ),
    "degrees across 180°": ("IAU_2015:49900", Affine(0.4, 0, 174.1, 0, -0.4, 9), lambda x, y: (x, y)),
    "degrees from 0 to 360": ("IAU_2015:49900", Affine(0.4, 0, 284.1, 0, -0.4, 9), lambda x, y: (x, y)),
    "north pole": (
        "+proj=stere +lat_0=90 +R=3396190 +units=m +no_defs",
        Affine(SIDE, 0, -12 * SIDE, 0, -SIDE, 10 * SIDE),
        lambda x, y: polar(x, y, 1),
    ),
    "south pole": (
        "+proj=stere +lat_0=-90 +R=3396190 +units=m +no_defs",
        Affine(SIDE, 0, -12 * SIDE, 0, -SIDE, 10 * SIDE),
        lambda x, y: polar(x, y, -1),
    ),
}


@pytest.fixture(scope="module", params=[-180, 0], ids=["from -180", "from 0"])
def globe(request, tmp_path_factory):
    """The function on the whole planet, in pixels of half a degree."""
    longitude = request.param + 0.25 + 0.5 * np.arange(720)
    latitude = 90 - 0.25 - 0.5 * np.arange(360)
    values = field(longitude[None], latitude[:, None]).astype(np.float32)
    path = tmp_path_factory.mktemp("globe") / "globe.tif"
    return write(path, values[None], Affine(0.5, 0, request.param, 0, -0.5, 90), "IAU_2015:49900")


@pytest.mark.parametrize("name", TARGETS)
def test_every_pixel_comes_from_its_place_on_the_planet(globe, name):
    crs, transform, inverse = TARGETS[name]
    grid = RasterGrid(CRS.from_string(crs), transform, 20, 24)
    row, column = np.mgrid[:20, :24] + 0.5
    expected = field(*inverse(*grid.at(column, row)))
    with open_raster(globe) as raster:
        warp = Warp.to_grid(raster, 1, grid, "bilinear")
        whole = warp.read(0, 0, 20, 24)
        parts = np.block([[warp.read(r, c, 10, 8) for c in (0, 8, 16)] for r in (0, 10)])
    # Where the source ends at a meridian, half a pixel of it is not interpolated but repeated.
    assert np.abs(whole - expected).max() < (0.6 if "180" in name else 0.03)
    assert np.abs(whole - expected).mean() < 0.05
    assert np.abs(parts - whole).max() < 1e-3


def test_a_finer_source_is_averaged_and_a_coarser_one_interpolated(tmp_path):
    fine = RNG.random((1, 64, 96)).astype(np.float32)
    path = write(tmp_path / "fine.tif", fine, Affine(10, 0, 5000, 0, -10, 8000))
    grid = RasterGrid(CRS.from_string(MARS), Affine(40, 0, 5000, 0, -40, 8000), 16, 24)
    with open_raster(path) as raster:
        warp = Warp.to_grid(raster, 1, grid)
        assert warp.method == "average" and warp.ratio == pytest.approx(0.25)
        found = warp.read(0, 0, 16, 24)
        assert np.allclose(found, fine[0].reshape(16, 4, 24, 4).mean((1, 3)), atol=1e-6)
        assert np.array_equal(warp.read(3, 5, 7, 9), found[3:10, 5:14])

    coarse = RNG.random((1, 8, 8)).astype(np.float32)
    path = write(tmp_path / "coarse.tif", coarse, Affine(40, 0, 5000, 0, -40, 8000))
    grid = RasterGrid(CRS.from_string(MARS), Affine(10, 0, 5080, 0, -10, 7920), 16, 16)
    with open_raster(path) as raster:
        warp = Warp.to_grid(raster, 1, grid)
        assert warp.method == "bilinear" and warp.ratio == pytest.approx(4)
        found = warp.read(0, 0, 16, 16)
    place = (np.arange(16) + 0.5) / 4 + 2 - 0.5
    first, rest = place.astype(int), place % 1
    rows = coarse[0][first] * (1 - rest)[:, None] + coarse[0][first + 1] * rest[:, None]
    assert np.allclose(found, rows[:, first] * (1 - rest) + rows[:, first + 1] * rest, atol=1e-6)


def test_on_the_same_grid_nothing_changes(tmp_path):
    values = RNG.random((1, 20, 30)).astype(np.float32)
    for name, transform in {
        "north": PLACE,
        "south": Affine(10, 0, 5000, 0, 10, 8000),
        "mirrored": Affine(-10, 0, 5000, 0, -10, 8000),
        "turned": Affine(8, 6, 5000, 6, -8, 8000),
    }.items():
        with open_raster(write(tmp_path / f"{name}.tif", values, transform)) as raster:
            assert np.array_equal(Warp.to_grid(raster, 1, RasterGrid.of(raster)).read(0, 0, 20, 30), values[0]), name


def no_data_files(folder, values, known):
    """Write the same band with no-data marked in every way that files have."""
    place = {"transform": PLACE, "crs": MARS}
    yield write(folder / "tag.tif", np.where(known, values, 255)[None].astype(np.uint8), **place, nodata=255)
    yield write(folder / "nan.tif", np.where(known, values, np.nan)[None].astype(np.float32), **place)
    yield write(folder / "lowest.tif", np.where(known, values, NO_DATA)[None].astype(np.float32), **place)
    both = np.stack([values, known * 255]).astype(np.uint8)
    yield write(folder / "alpha.tif", both, **place, alpha="YES", photometric="MINISBLACK")
    masked = write(folder / "mask.tif", values[None].astype(np.uint8), **place)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(masked, "r+") as file:
        file.write_mask(known)
    yield masked
    other = np.stack([np.zeros_like(values), np.where(known, values, 7)]).astype(np.uint8)
    vrt = folder / "second.vrt"
    tif = write(folder / "second.tif", other, **place)
    with rasterio.open(tif, "r+") as file:
        file.nodata = 7
    vrt.write_bytes(tif.read_bytes())
    yield vrt


def test_no_data_stays_no_data_however_it_is_marked(tmp_path):
    values = RNG.integers(10, 200, (40, 40))
    known = np.ones((40, 40), bool)
    known[10:20, 12:30] = False
    quarter = np.where(known, values, np.nan).reshape(10, 4, 10, 4)
    for path in no_data_files(tmp_path, values, known):
        band = 2 if path.name == "second.vrt" else 1
        with open_raster(path) as raster:
            here = RasterGrid.of(raster)
            found = Warp.to_grid(raster, band, here).read(0, 0, 40, 40)
            assert np.array_equal(found, np.where(known, values, np.nan), equal_nan=True), path.name
            beyond = Warp.to_grid(raster, band, here.window(-3, -4, 50, 50)).read(0, 0, 50, 50)
            assert np.array_equal(np.isfinite(beyond), np.pad(known, ((3, 7), (4, 6)))), path.name
            coarse = RasterGrid(here.crs, Affine(40, 0, 5000, 0, -40, 8000), 10, 10)
            found = Warp.to_grid(raster, band, coarse).read(0, 0, 10, 10)
            whole = np.isfinite(quarter).all((1, 3))
            assert np.allclose(found[whole], quarter.mean((1, 3))[whole], atol=1e-4), path.name
            assert np.isnan(found[~np.isfinite(quarter).any((1, 3))]).all(), path.name


def test_grids_that_do_not_overlap_are_refused(tmp_path):
    path = write(tmp_path / "here.tif", np.ones((1, 8, 8), np.float32))
    far = RasterGrid(CRS.from_string(MARS), Affine(10, 0, 900_000, 0, -10, 8000), 8, 8)
    earth = RasterGrid(CRS.from_epsg(32633), PLACE, 8, 8)
    with open_raster(path) as raster:
        with pytest.raises(InputError, match=r"here.tif does not overlap the grid.*x 5000 to 5080.*x 900000 to 900080"):
            Warp.to_grid(raster, 1, far)
        with pytest.raises(
            InputError, match="here.tif cannot be brought to the grid: .*WGS 84 / UTM zone 33N.*same planet"
        ):
            Warp.to_grid(raster, 1, earth)


def test_a_small_source_within_a_large_grid_overlaps_it(tmp_path):
    path = write(tmp_path / "small.tif", np.ones((1, 3, 3), np.float32))
    grid = RasterGrid(CRS.from_string(MARS), Affine(10, 0, -50_000, 0, -10, 60_000), 10_000, 10_000)
    with open_raster(path) as raster:
        warp = Warp.to_grid(raster, 1, grid)
        assert warp.ratio == pytest.approx(1) and warp.read(5200, 5500, 3, 3).tolist() == [[1] * 3] * 3


def test_a_raster_without_a_place_is_refused(tmp_path):
    band = np.ones((1, 8, 8), np.float32)
    with pytest.raises(InputError, match="bare.tif has no coordinate system.*a_srs"):
        open_raster(write(tmp_path / "bare.tif", band, crs=None))
    with pytest.raises(InputError, match="placeless.tif has a coordinate system, but no place"):
        open_raster(write(tmp_path / "placeless.tif", band, transform=None))
    points = [rasterio.control.GroundControlPoint(r, c, 5000 + 10 * c, 8000 - 10 * r) for r in (0, 8) for c in (0, 8)]
    with pytest.raises(InputError, match="points.tif is placed by ground control points.*gdalwarp"):
        open_raster(write(tmp_path / "points.tif", band, transform=None, gcps=points))
    with pytest.raises(InputError, match="There is no raster .*nowhere.tif"):
        open_raster(tmp_path / "nowhere.tif")


def test_a_truncated_raster_is_named(tmp_path):
    path = write(tmp_path / "cut.tif", RNG.random((1, 64, 64)).astype(np.float32))
    path.write_bytes(path.read_bytes()[:9000])
    with open_raster(path) as raster, pytest.raises(InputError, match="cut.tif cannot be read"):
        Warp.to_grid(raster, 1, RasterGrid.of(raster)).read(0, 0, 64, 64)
