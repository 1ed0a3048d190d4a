"""Which band of which file is which: descriptions, colours, file names, and what the user says."""

import numpy as np
import pytest
import rasterio
from helpers.georeferenced import write
from rasterio.enums import ColorInterp

from marsls_keras.errors import InputError
from marsls_keras.mapping.band_sources import BandSource, find_bands, parse_band


def raster(path, bands=1, descriptions=None, **options):
    write(path, np.ones((bands, 8, 8), np.uint8), **options)
    if descriptions:
        with rasterio.open(path, "r+") as file:
            file.descriptions = descriptions
    return path


def test_descriptions_colours_and_file_names_tell_bands(tmp_path):
    files = [
        raster(tmp_path / "viking.tif", 3, photometric="RGB"),
        raster(tmp_path / "a.tif", 2, ("Slope (degrees)", "Thermal inertia")),
        raster(tmp_path / "mola_hrsc_DTM_200m.tif"),
        raster(tmp_path / "CTX grey.tif"),
    ]
    found = find_bands(files)
    assert [(source.name, source.path.rsplit("/")[-1], source.band) for source in found] == [
        ("red", "viking.tif", 1),
        ("green", "viking.tif", 2),
        ("blue", "viking.tif", 3),
        ("dem", "mola_hrsc_DTM_200m.tif", 1),
        ("slope", "a.tif", 1),
        ("thermal", "a.tif", 2),
        ("gray", "CTX grey.tif", 1),
    ]


def test_transparency_is_no_band(tmp_path):
    path = raster(tmp_path / "viking.tif", 4, photometric="RGB", alpha="YES")
    with rasterio.open(path) as file:
        assert file.colorinterp[3] == ColorInterp.alpha
    assert [source.name for source in find_bands([path])] == ["red", "green", "blue"]


def test_what_the_user_says_counts_more_than_names(tmp_path):
    dem, better = raster(tmp_path / "dem.tif"), raster(tmp_path / "x.tif", 2)
    given = [parse_band(f"dem={better}:2")]
    assert find_bands([dem], given) == [BandSource("dem", str(better), 2)]
    # The other band of the file is asked for only if the file is among those whose bands are to be told.
    with pytest.raises(InputError, match=r"--band NAME=.*x.tif:1"):
        find_bands([better], given)


def test_a_band_without_a_name_is_asked_for(tmp_path):
    unknown = raster(tmp_path / "viking.tif")
    both = raster(tmp_path / "dem_or_slope.tif")
    with pytest.raises(InputError, match=r"red, green, .*\n.*--band NAME=.*viking.tif:1\n.*dem_or_slope.tif:1"):
        find_bands([unknown, both])


def test_a_band_that_is_there_twice_is_named(tmp_path):
    one, two = raster(tmp_path / "dem.tif"), raster(tmp_path / "dem_200m.tif")
    with pytest.raises(InputError, match=r"band dem is there 2 times:\n.*dem.tif\n.*dem_200m.tif\n.*--band dem=FILE"):
        find_bands([one, two])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dem", "expected NAME=FILE, such as dem=hrsc.tif"),
        ("dem=", "expected NAME=FILE"),
        ("slop=a.tif", "there is no band slop. Did you mean slope"),
        ("red=three.tif", r"three.tif has 3 bands. Say which one: red=three.tif:1"),
        ("red=nowhere.tif", "There is no raster nowhere.tif"),
    ],
)
def test_a_wrong_band_option_says_what_is_expected(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    raster(tmp_path / "three.tif", 3)
    with pytest.raises(InputError, match=message):
        parse_band(text)


def test_an_address_is_no_band_number():
    assert parse_band("dem=https://example.org/dem.tif:1") == BandSource("dem", "https://example.org/dem.tif", 1)
