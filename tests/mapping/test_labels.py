"""Labels on the grid of a composite: masks and polygons, against membership of pixel centres by shapely."""

import numpy as np
import pyogrio
import pytest
import shapely
from helpers.georeferenced import MARS, PLACE, RNG, write
from rasterio.crs import CRS
from rasterio.transform import Affine

from marsls_keras.errors import InputError
from marsls_keras.mapping.grid import RasterGrid
from marsls_keras.mapping.labels import open_labels

GRID = RasterGrid(CRS.from_string(MARS), PLACE, 40, 48)
DEGREE = np.radians(3396190.0)


def blob(x, y, radius, hole=0.0):
    """A polygon of 60 corners around a point in map coordinates, perhaps with a hole."""
    shape = shapely.Point(x, y).buffer(radius)
    return shape.difference(shapely.Point(x, y).buffer(hole)) if hole else shape


SHAPES = [blob(5133, 7891, 83, hole=31), blob(5371, 7702, 118), blob(5502, 8013, 64)]


def inventory(path, shapes, crs=MARS, layer="landslides", append=False):
    kind = shapes[0].geom_type
    geometry = shapely.to_wkb(np.array(shapes, dtype=object))
    pyogrio.raw.write(path, geometry, [], [], layer=layer, geometry_type=kind, crs=crs, append=append)
    return path


def centres(shapes, grid=GRID):
    """Return which pixel centres lie in one of the shapes."""
    row, column = np.mgrid[: grid.height, : grid.width] + 0.5
    x, y = grid.at(column, row)
    return np.any([shapely.contains_xy(shape, x, y) for shape in shapes], axis=0)


def read(path, grid=GRID, layer=None):
    with open_labels(path, grid, layer) as labels:
        whole = labels.read(0, 0, grid.height, grid.width)
        parts = [[labels.read(row, column, 16, 16) for column in (0, 16, 32)] for row in (0, 16, 24)]
        assert all(
            np.array_equal(part, whole[row : row + 16, column : column + 16])
            for row, line in zip((0, 16, 24), parts, strict=True)
            for column, part in zip((0, 16, 32), line, strict=True)
        )
        assert whole.dtype == np.uint8
        return whole, labels.note


def test_a_mask_on_the_grid_is_taken_as_it_is_and_all_but_1_is_background(tmp_path):
    values = RNG.integers(0, 4, (1, 40, 48)).astype(np.float32)
    values[0, 3, 4:9] = np.nan
    found, note = read(write(tmp_path / "mask.tif", values, nodata=3))
    assert np.array_equal(found, values[0] == 1) and note == "The mask has the grid of the composite."


@pytest.mark.parametrize(
    ("transform", "rows", "columns"),
    [
        (PLACE, slice(None), slice(None)),
        (Affine(10, 0, 5000, 0, 10, 7600), slice(None, None, -1), slice(None)),
        (Affine(-10, 0, 5480, 0, -10, 8000), slice(None), slice(None, None, -1)),
    ],
    ids=["north-up", "south-up", "mirrored"],
)
def test_a_mask_is_turned_as_the_grid_is(tmp_path, transform, rows, columns):
    values = RNG.integers(0, 2, (1, 40, 48)).astype(np.uint8)
    found, _ = read(write(tmp_path / "mask.tif", values, transform))
    assert np.array_equal(found, values[0][rows, columns])


def test_a_mask_of_another_grid_gives_each_pixel_its_nearest_value_and_is_told(tmp_path):
    fine = RNG.integers(0, 3, (1, 90, 110)).astype(np.uint8)
    place = Affine(0.00007, 0, 0.0840, 0, -0.00007, 0.1354)
    found, note = read(write(tmp_path / "mask.tif", fine, place, "IAU_2015:49900"))
    row, column = np.mgrid[:40, :48] + 0.5
    x, y = GRID.at(column, row)
    at = (np.floor((0.1354 - y / DEGREE) / 0.00007).astype(int), np.floor((x / DEGREE - 0.0840) / 0.00007).astype(int))
    inside = (at[0] >= 0) & (at[0] < 90) & (at[1] >= 0) & (at[1] < 110)
    expected = np.where(inside, fine[0][np.clip(at[0], 0, 89), np.clip(at[1], 0, 109)] == 1, False)
    assert (found != expected).mean() < 0.002 and 0.1 < expected.mean() < 0.4
    assert "resampled from its own grid of Mars (2015) - Sphere / Ocentric (nearest neighbour)" in note


def test_polygons_hold_the_pixels_whose_centres_lie_in_them(tmp_path):
    found, note = read(inventory(tmp_path / "a.gpkg", SHAPES))
    assert np.array_equal(found, centres(SHAPES)) and 0.1 < found.mean() < 0.5 and note == "3 polygons."


def test_polygons_in_degrees_are_reprojected_and_it_is_said(tmp_path):
    turned = [shapely.transform(shape, lambda points: points / DEGREE + (360, 0)) for shape in SHAPES]
    found, note = read(inventory(tmp_path / "a.gpkg", turned, CRS.from_string("IAU_2015:49900").to_wkt()))
    assert (found != centres(SHAPES)).sum() <= 2  # centres on an outline
    assert note.startswith("3 polygons, reprojected from Mars (2015) - Sphere / Ocentric")


def test_a_long_edge_is_bent_as_the_projection_bends_it(tmp_path):
    """A box in degrees has a curved outline on a polar map."""
    pole = CRS.from_string("+proj=stere +lat_0=90 +R=3396190 +units=m +no_defs")
    grid = RasterGrid(pole, Affine(20_000, 0, -480_000, 0, -20_000, 400_000), 40, 48)
    path = inventory(tmp_path / "a.gpkg", [shapely.box(-80, 84, 80, 87)], CRS.from_string("IAU_2015:49900").to_wkt())
    found, _ = read(path, grid)
    row, column = np.mgrid[:40, :48] + 0.5
    x, y = grid.at(column, row)
    away = np.degrees(2 * np.arctan(np.hypot(x, y) / (2 * 3396190)))
    expected = (away > 3) & (away < 6) & (np.abs(np.degrees(np.arctan2(x, -y))) < 80)
    assert (found != expected).mean() < 0.003 and expected.mean() > 0.05


def test_an_inventory_of_the_planet_does_not_tear_where_the_projection_ends(tmp_path):
    """Polygons in longitudes from 0 to 360, of which some lie across 180° or the far side of the composite."""
    turned = [shapely.transform(shape, lambda points: points / DEGREE + (360, 0)) for shape in SHAPES]
    far = [shapely.box(179, -1, 181, 1), shapely.box(170, -90, 190, -60), shapely.box(-1, 40, 1, 60)]
    system = CRS.from_string("IAU_2015:49900").to_wkt()
    path = inventory(tmp_path / "a.gpkg", [*turned, *far], system)
    found, _ = read(path)
    assert (found != centres(SHAPES)).sum() <= 2
    degrees = RasterGrid(CRS.from_string("IAU_2015:49900"), Affine(0.1, 0, 178, 0, -0.1, 2), 40, 48)
    found, _ = read(path, degrees)
    assert np.array_equal(found, centres(far[:1], degrees)) and found.sum() == 400
    split = [shapely.box(179, -1, 180, 1), shapely.box(-180, -1, -179, 1)]  # as most programs cut at 180°
    whole = inventory(tmp_path / "split.gpkg", [shapely.multipolygons(split)], system)
    assert np.array_equal(read(whole, degrees)[0], found)


def test_invalid_polygons_are_repaired_and_counted(tmp_path):
    bow = shapely.Polygon([(5100, 7700), (5300, 7900), (5300, 7700), (5100, 7900)])
    found, note = read(inventory(tmp_path / "a.gpkg", [bow, SHAPES[2]]))
    lobes = [shapely.Polygon([(x, 7700), (5200, 7800), (x, 7900)]) for x in (5100, 5300)]
    assert note == "2 polygons; 1 were invalid and were repaired."
    assert (found != centres([*lobes, SHAPES[2]])).sum() <= 20 and found[20:30, 10:30].sum() > 80


def test_layers_are_told_apart(tmp_path):
    path = inventory(tmp_path / "a.gpkg", SHAPES[:1], layer="slides")
    inventory(path, [shapely.Point(5100, 7900)], layer="crowns", append=True)
    assert np.array_equal(read(path)[0], centres(SHAPES[:1]))  # the only layer of polygons
    inventory(path, SHAPES[1:], layer="older", append=True)
    with pytest.raises(InputError, match="several layers of polygons; say which with --layer:\n.*slides\n.*older"):
        read(path)
    assert np.array_equal(read(path, layer="older")[0], centres(SHAPES[1:]))
    with pytest.raises(InputError, match="has no layer newer. It has:"):
        read(path, layer="newer")
    with pytest.raises(InputError, match="holds no polygon in its layer crowns; found 1 features of other kinds"):
        read(path, layer="crowns")


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_labels_that_cannot_be_used_are_refused(tmp_path):
    mask = RNG.integers(0, 2, (2, 40, 48)).astype(np.uint8)
    far = [shapely.transform(SHAPES[0], lambda points: points + 1e6)]
    cases = {
        "two.tif has 2 bands; expected one, with 1 for landslide": write(tmp_path / "two.tif", mask),
        "bare.tif has no coordinate system": write(tmp_path / "bare.tif", mask[:1], crs=None),
        "far.tif does not overlap the grid": write(
            tmp_path / "far.tif", mask[:1], Affine(10, 0, 900_000, 0, -10, 8000)
        ),
        "No polygon of .*far.gpkg lies on the composite.*1005050 to 1005216.*48 x 40": inventory(
            tmp_path / "far.gpkg", far
        ),
        "bare.gpkg has no coordinate system": inventory(tmp_path / "bare.gpkg", SHAPES, crs=None),
        "earth.gpkg cannot be brought to the composite.*same planet": inventory(
            tmp_path / "earth.gpkg", SHAPES, "EPSG:32633"
        ),
        "nowhere.gpkg cannot be read": tmp_path / "nowhere.gpkg",
        "There is no raster .*nowhere.tif": tmp_path / "nowhere.tif",
    }
    for message, path in cases.items():
        with pytest.raises(InputError, match=message):
            read(path)
    (tmp_path / "text.gpkg").write_text("no GeoPackage")
    with pytest.raises(InputError, match="text.gpkg cannot be read"):
        read(tmp_path / "text.gpkg")
    with pytest.raises(InputError, match="--layer a: .*mask.tif is taken as a raster"):
        read(write(tmp_path / "mask.tif", mask[:1]), layer="a")
    cut = write(tmp_path / "cut.tif", mask[:1])
    cut.write_bytes(cut.read_bytes()[:1200])
    with pytest.raises(InputError, match="cut.tif cannot be read"):
        read(cut)
