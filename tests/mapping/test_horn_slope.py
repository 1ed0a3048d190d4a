"""Slope from a DEM: equal to GDAL's, to planes by hand, and to sizes of pixels on the ellipsoid."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers.georeferenced import MARS, write
from rasterio.crs import CRS
from rasterio.transform import Affine

from marsls_keras.errors import InputError
from marsls_keras.mapping import slope as slope_module
from marsls_keras.mapping.grid import RasterGrid
from marsls_keras.mapping.slope import ellipsoid, horn_slope, pixel_metres, write_slope

STORED = np.load(Path(__file__).parents[1] / "references" / "gdal_slope.npz")


def test_slope_is_that_of_gdaldem_to_a_thousandth_of_a_degree(tmp_path, monkeypatch):
    width, height = STORED["pixel"]
    dem = write(tmp_path / "dem.tif", STORED["heights"][None], Affine(width, 0, 0, 0, -height, 0), nodata=-9999)
    for rows in (1000, 7):  # strips of rows give what the whole gives
        monkeypatch.setattr(slope_module, "_ROWS", rows)
        write_slope(dem, 1, tmp_path / "slope.tif")
        with rasterio.open(tmp_path / "slope.tif") as file:
            found = file.read(1, masked=True)
            assert file.crs == CRS.from_string(MARS) and file.transform.a == width
        expected = STORED["slope"]
        assert np.array_equal(np.ma.getmaskarray(found), np.isnan(expected)) and np.isnan(expected).sum() > 172
        assert np.nanmax(np.abs(found.filled(np.nan) - expected)) < 1e-3 and np.nanmax(expected) > 30


@pytest.mark.parametrize("upside_down", [False, True])
def test_a_plane_has_its_own_slope(upside_down):
    y, x = np.mgrid[:6, :7].astype(float)
    heights = 3.0 * x - 4.0 * y
    found = horn_slope(heights[::-1] if upside_down else heights, 10.0, 10.0)
    assert np.allclose(found[1:-1, 1:-1], np.degrees(np.arctan(0.5))) and np.isnan(found[0]).all()


def test_scale_and_offset_of_the_file_count(tmp_path):
    dem = write(tmp_path / "dem.tif", np.mgrid[:5, :5][1].astype(np.int16)[None])
    with rasterio.open(dem, "r+") as file:
        file.scales, file.offsets = (20.0,), (-3.0,)
    write_slope(dem, 1, tmp_path / "slope.tif")
    with rasterio.open(tmp_path / "slope.tif") as file:
        assert np.allclose(file.read(1)[1:-1, 1:-1], np.degrees(np.arctan(2.0)))  # 20 m in pixels of 10 m


@pytest.mark.parametrize("name", ["IAU_2015:49900", "IAU_2015:49901", "EPSG:4326"])
def test_pixels_in_degrees_have_the_size_that_geodesics_have(name):
    from pyproj import CRS as Pyproj

    geod = Pyproj.from_user_input(name).get_geod()
    grid = RasterGrid(CRS.from_string(name), Affine(0.002, 0, 280, 0, -0.001, 60), 3, 4)
    width, height = pixel_metres(grid)
    for row in range(3):
        latitude = 60 - 0.001 * (row + 0.5)
        *_, across = geod.inv(280, latitude, 280.002, latitude)
        *_, down = geod.inv(280, latitude - 0.0005, 280, latitude + 0.0005)
        assert width[row, 0] == pytest.approx(across, rel=1e-6) and height[row, 0] == pytest.approx(down, rel=1e-6)


def test_units_of_projected_systems_count():
    grid = RasterGrid(CRS.from_string("+proj=utm +zone=33 +units=us-ft"), Affine(100, 0, 0, 0, -50, 0), 2, 2)
    width, height = pixel_metres(grid)
    assert width[0, 0] == pytest.approx(30.48006) and height[0, 0] == pytest.approx(15.24003)


def test_ellipsoids_are_those_of_the_system_itself():
    assert ellipsoid(CRS.from_string("+proj=longlat +a=3396190 +b=3376200 +no_defs")) == pytest.approx(
        (3396190.0, 1 - 3376200 / 3396190)
    )
    axis, flattening = ellipsoid(CRS.from_epsg(32633))
    assert (axis, 1 / flattening) == pytest.approx((6378137.0, 298.257223563))


def test_a_rotated_dem_in_degrees_is_refused(tmp_path):
    turned = Affine(0.01, 0.005, 280, 0.005, -0.01, 10)
    dem = write(tmp_path / "dem.tif", np.zeros((1, 5, 5), np.float32), turned, "IAU_2015:49900")
    with pytest.raises(InputError, match="do not run along parallels"):
        write_slope(dem, 1, tmp_path / "slope.tif")
