"""Masks of whole rasters, and the polygons of their landslides."""

import sqlite3
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from affine import Affine
from helpers.inventories import MARS, NORTH_UP, field, write_raster
from rasterio.features import rasterize
from scipy import ndimage

from marsls_keras.errors import InputError
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.decision_elements import MaskStep, in_order
from marsls_keras.mapping.inventory import _STEPS, Inventory, write_inventory, write_mask
from marsls_keras.mapping.polygons import outlines
from marsls_keras.mapping.vector_file import read_polygons

EIGHT = np.ones((3, 3))
DECISION = Decision(threshold=0.55, min_area=12, max_hole=6)


def rows_of(path: Path) -> list[dict]:
    """Return the rows of an inventory, read with GDAL."""
    meta, _, geometry, values = pyogrio.raw.read(path, layer="landslides")
    columns = dict(zip(meta["fields"], values, strict=True))
    shapes = shapely.from_wkb(geometry)
    return [{"shape": shapes[i], **{k: v[i] for k, v in columns.items()}} for i in range(len(shapes))]


def known_part(shape: tuple[int, int]) -> np.ndarray:
    known = np.ones(shape, bool)
    known[40:60, :30] = known[100:, 80:] = False
    return known


def made(folder: Path, seed: int = 0, **options) -> tuple[Path, Path, Path, np.ndarray]:
    """Write probability, mask and a raster of two bands; return their paths and the mask."""
    probability = field(seed)
    probability[~known_part(probability.shape)] = np.nan
    write_raster(folder / "p.tif", probability, np.nan, **options)
    write_mask(folder / "p.tif", folder / "mask.tif", DECISION, rows=37)
    raster = np.stack([30 * field(seed + 1), 5000 * field(seed + 2)])
    write_raster(folder / "raster.tif", raster, **options)
    with rasterio.open(folder / "mask.tif") as mask:
        return folder / "p.tif", folder / "mask.tif", folder / "raster.tif", mask.read(1)


def inventory(
    folder: Path, seed: int = 0, simplify: float = 1.0, **options
) -> tuple[Inventory, list[dict], np.ndarray]:
    probability, mask, raster, values = made(folder, seed, **options)
    found = write_inventory(mask, probability, raster, folder / "a.gpkg", ("slope", "dem"), simplify)
    return found, rows_of(folder / "a.gpkg"), values


@pytest.mark.parametrize("rows", [16, 64, None])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_mask_equals_that_of_the_whole_in_memory(tmp_path: Path, rows: int | None, scale: float) -> None:
    probability = field(3, sigma=1.5)
    known = known_part(probability.shape)
    probability[~known] = -9999
    path = write_raster(tmp_path / "p.tif", probability, -9999, blockxsize=16, blockysize=16, tiled=True)
    write_mask(path, tmp_path / "mask.tif", DECISION, scale, rows)
    expected = DECISION.post_process((probability >= np.float32(0.55)) & known, known, scale)
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert np.array_equal(mask.read(1), np.where(known, expected, 255))
        assert (mask.nodata, mask.dtypes, mask.transform) == (255, ("uint8",), NORTH_UP)
        assert mask.crs == rasterio.crs.CRS.from_string(MARS)
        assert mask.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert ElementTree.parse(tmp_path / "mask.qml").getroot().tag == "qgis"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.qml", "mask.tif", "p.tif"]


def test_every_step_of_a_decision_has_its_counterpart_over_a_raster() -> None:
    assert {element.name for element in in_order() if isinstance(element, MaskStep)} == set(_STEPS)


def test_polygons_are_the_components_of_the_mask_whole_and_once(tmp_path: Path) -> None:
    found, rows, mask = inventory(tmp_path, simplify=0)
    labels, count = ndimage.label(mask == 1, EIGHT)
    assert found.landslides == len(rows) == count > 8
    burnt = rasterize([(row["shape"], int(row["id"])) for row in rows], mask.shape, transform=NORTH_UP)
    assert np.array_equal(burnt, labels)
    assert any(part.interiors for row in rows for part in row["shape"].geoms)  # holes are kept
    assert all(shapely.is_valid(row["shape"]) for row in rows)
    assert found.at_edge == sum(row["at_edge"] for row in rows)


def test_attributes_are_those_of_the_pixels(tmp_path: Path) -> None:
    found, rows, mask = inventory(tmp_path)
    labels, count = ndimage.label(mask == 1, EIGHT)
    with rasterio.open(tmp_path / "p.tif") as p, rasterio.open(tmp_path / "raster.tif") as raster:
        probability, (slope, dem) = p.read(1), raster.read()
    where = np.arange(1, count + 1)
    unknown = np.pad(mask == 255, 1, constant_values=True)
    edge = ndimage.binary_dilation(unknown, EIGHT)[1:-1, 1:-1]
    expected = {
        "pixels": ndimage.sum_labels(np.ones(mask.shape), labels, where),
        "probability_mean": ndimage.mean(probability.astype(float), labels, where),
        "probability_max": ndimage.maximum(probability, labels, where),
        "slope_mean": ndimage.mean(slope.astype(float), labels, where),
        "relief": ndimage.maximum(dem, labels, where) - ndimage.minimum(dem, labels, where),
        "at_edge": ndimage.maximum(edge, labels, where),
    }
    for name, values in expected.items():
        assert np.allclose([row[name] for row in rows], values, rtol=1e-6), name
    # On a sphere, a pixel of the equidistant cylindrical projection has cos(latitude) times its area in the map.
    latitude = (NORTH_UP.f - 232 * (np.arange(mask.shape[0]) + 0.5)) / 3396190
    pixel = np.broadcast_to((0.232**2 * np.cos(latitude))[:, None], mask.shape)
    area = ndimage.sum_labels(pixel, labels, where)
    assert np.allclose([row["area_km2"] for row in rows], area, rtol=1e-4)
    assert found.area_km2 == pytest.approx(area.sum(), rel=1e-4)


def test_relief_and_slope_are_scaled_as_the_file_says(tmp_path: Path) -> None:
    """Whole numbers with scale and offset, and no data that the file does not tell."""
    found = np.zeros((20, 20), np.float32)
    found[5:10, 5:10] = 0.9
    write_raster(tmp_path / "p.tif", found)
    write_mask(tmp_path / "p.tif", tmp_path / "mask.tif", Decision())
    slope = np.full((20, 20), 8, np.float32)
    slope[5, 5] = np.finfo(np.float32).min
    height = np.arange(400, dtype=np.float32).reshape(20, 20)
    raster = write_raster(tmp_path / "raster.tif", np.stack([slope, height]))
    with rasterio.open(raster, "r+") as file:
        file.scales, file.offsets = (0.5, 10.0), (1.0, -4000.0)
    write_inventory(tmp_path / "mask.tif", tmp_path / "p.tif", raster, tmp_path / "a.gpkg", ("slope", "dem"))
    (row,) = rows_of(tmp_path / "a.gpkg")
    assert (row["relief"], row["slope_mean"]) == pytest.approx((10 * (height[9, 9] - height[5, 5]), 5))


def test_length_and_width_are_of_a_turned_rectangle(tmp_path: Path) -> None:
    y, x = np.mgrid[:120, :120] - 60
    along, across = (x + 2 * y) / 5**0.5, (y - 2 * x) / 5**0.5
    probability = ((abs(along) <= 40) & (abs(across) <= 10)).astype(np.float32)
    write_raster(tmp_path / "p.tif", probability)
    write_mask(tmp_path / "p.tif", tmp_path / "mask.tif", Decision())
    place = [tmp_path / name for name in ("mask.tif", "p.tif", "p.tif", "a.gpkg")]
    write_inventory(*place, bands=("gray",))
    (row,) = rows_of(tmp_path / "a.gpkg")
    assert row["length_km"] == pytest.approx(80 * 0.232, rel=0.04)
    assert row["width_km"] == pytest.approx(20 * 0.232, rel=0.1)
    assert row["perimeter_km"] == pytest.approx(200 * 0.232, rel=0.1)
    assert np.isnan(row["relief"]) and np.isnan(row["slope_mean"])  # the raster has neither band


def test_simplified_outlines_have_fewer_corners_and_do_not_overlap(tmp_path: Path) -> None:
    _, rows, _ = inventory(tmp_path)
    (tmp_path / "plain").mkdir()
    _, exact, _ = inventory(tmp_path / "plain", simplify=0)
    shapes = [row["shape"] for row in rows]
    assert (
        shapely.get_num_coordinates(shapes).sum() < 0.6 * shapely.get_num_coordinates([r["shape"] for r in exact]).sum()
    )
    assert shapely.coverage_is_valid(shapes) and all(shapely.is_valid(shapes))
    assert [row["area_km2"] for row in rows] == [row["area_km2"] for row in exact]


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", Affine(0.01, 0, 179.5, 0, -0.01, -10)),  # across the antimeridian
        ("+proj=longlat +R=3396190 +no_defs", Affine(0.01, 0, -70, 0, -0.01, -10)),
        ("+proj=stere +lat_0=90 +R=3396190 +units=m", Affine(300, 0, -15000, 0, -300, 15000)),  # around the pole
        ("EPSG:32633", Affine(30, 0, 5e5, 0, -30, 5e6)),
        ("EPSG:32633", Affine(20, 12, 5e5, 12, -20, 5e6)),  # rotated
        ("EPSG:32633", Affine(30, 0, 5e5, 0, 30, 5e6)),  # south-up
    ],
    ids=["antimeridian", "geographic", "polar", "utm", "rotated", "south-up"],
)
def test_areas_on_other_projections_and_bodies(tmp_path: Path, crs: str, transform: Affine) -> None:
    found, rows, mask = inventory(tmp_path, crs=crs, transform=transform)
    assert len(rows) == found.landslides > 0
    total = sum(row["area_km2"] for row in rows)
    # By hand: an integral over pixels, of the scale of each projection.
    pixel = abs(transform.determinant) / 1e6
    row, column = np.nonzero(mask == 1)
    x, y = (
        transform @ (column + 0.5, row + 0.5)
        if hasattr(transform, "__matmul__")
        else transform * (column + 0.5, row + 0.5)
    )
    if crs.startswith("+proj=stere"):
        colatitude = 2 * np.arctan(np.hypot(x, y) / (2 * 3396190))
        expected = (pixel * np.cos(colatitude / 2) ** 4).sum()
    elif "32633" in crs:
        expected = pixel * len(x) / 0.9996**2
    else:
        radius = 3396.190 if "R=" in crs else 6371.0072  # of the sphere of equal area
        expected = ((0.01 * np.pi / 180 * radius) ** 2 * np.cos(np.radians(y))).sum()
    assert total == pytest.approx(expected, rel=6e-3 if crs == "EPSG:4326" else 5e-4)
    assert max(row["length_km"] for row in rows) < 400  # nothing spans the globe


def test_the_style_is_in_the_geopackage_and_gdal_reads_it(tmp_path: Path) -> None:
    inventory(tmp_path)
    with sqlite3.connect(tmp_path / "a.gpkg") as file:
        ((table, column, qml, default),) = file.execute(
            "SELECT f_table_name, f_geometry_column, styleQML, useAsDefault FROM layer_styles"
        )
    assert (table, column, default) == ("landslides", "geom", 1)
    assert ElementTree.fromstring(qml).find(".//symbol").get("type") == "fill"
    found = read_polygons(tmp_path / "a.gpkg")
    assert len(found.shapes) > 8 and found.repaired == 0 and found.crs.to_dict()["R"] == 3396190


def test_an_empty_mask_gives_an_empty_inventory(tmp_path: Path) -> None:
    write_raster(tmp_path / "p.tif", np.zeros((9, 7), np.float32))
    write_mask(tmp_path / "p.tif", tmp_path / "mask.tif", Decision())
    place = [tmp_path / name for name in ("mask.tif", "p.tif", "p.tif", "a.gpkg")]
    assert write_inventory(*place, bands=("dem",)).landslides == 0
    assert rows_of(tmp_path / "a.gpkg") == []


def test_a_local_system_and_another_grid_are_refused(tmp_path: Path) -> None:
    local = 'LOCAL_CS["site",UNIT["metre",1]]'
    probability, mask, raster, _ = made(tmp_path, crs=local)
    with pytest.raises(InputError, match="'site' is local: it does not lie on a body"):
        write_inventory(mask, probability, raster, tmp_path / "a.gpkg", ("slope", "dem"))
    write_raster(tmp_path / "beside.tif", field(0), transform=NORTH_UP @ Affine.translation(0.5, 0))
    with pytest.raises(InputError, match="beside.tif lies elsewhere than .*mask.tif"):
        write_inventory(mask, probability, tmp_path / "beside.tif", tmp_path / "a.gpkg", ("dem",))
    assert not (tmp_path / "a.gpkg").exists()


def test_more_components_than_a_byte_can_number(tmp_path: Path) -> None:
    numbers = np.zeros((60, 60), np.int32)
    numbers[::2, ::2] = np.arange(1, 901).reshape(30, 30)
    with rasterio.open(write_raster(tmp_path / "numbers.tif", numbers)) as raster:
        found = outlines(raster, 900)
    assert np.array_equal(rasterize(zip(found, range(1, 901), strict=True), (60, 60), transform=NORTH_UP), numbers)
