"""A map's polygons against true ones, on squares whose overlaps are known."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from helpers.inventories import MARS, TRUTH, square, write_map, write_raster, write_truth
from pyproj import CRS, Transformer

from marsls_keras.errors import InputError
from marsls_keras.inference.decision import Decision
from marsls_keras.mapping.detection import evaluate_polygons
from marsls_keras.mapping.inventory import write_inventory, write_mask


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_map(tmp_path_factory.mktemp("map"))


def test_landslides_are_counted_as_by_hand(mapped: Path, tmp_path: Path) -> None:
    result = evaluate_polygons(mapped, write_truth(tmp_path / "truth.gpkg", TRUTH))
    assert (result["true"], result["found"], result["outside"], result["repaired"]) == (3, 4, 2, 0)
    assert (result["touched"], result["half"]) == pytest.approx((2 / 3, 1 / 3))
    assert (result["false"], result["half_false"]) == pytest.approx((2 / 4, 3 / 4))
    assert result["counts"] == {"tp": 130, "fp": 70 + 16 + 36, "fn": 70 + 900, "tn": 8000 - 130 - 122 - 970}
    # Of 100 and 900 pixels of 0.0538 km², and of 16 and 36.
    assert [
        (row["km2"], row["true"], row["touched"], row["half"], row["found"], row["false"]) for row in result["classes"]
    ] == [
        ([pytest.approx(0.1), 1.0], 0, 0, 0, 1, 1),
        ([1.0, 10.0], 2, 2, 1, 3, 1),
        ([10.0, 100.0], 1, 0, 0, 0, 0),
    ]
    # Outlines: the first agrees, those of the second are apart by 7 pixels in x, on average over both outlines by less.
    boundary = result["boundary_m"]
    assert boundary["landslides"] == 2 and boundary["p90"] > boundary["median"] > 0


def test_distance_of_shifted_outlines_is_that_of_sampled_points(mapped: Path, tmp_path: Path) -> None:
    shifted = square(13, 10, 10)
    result = evaluate_polygons(mapped, write_truth(tmp_path / "truth.gpkg", [shifted]))
    # By hand: points one pixel apart on one square's outline, and their distances from the other's, in pixels.
    line = np.arange(10)
    ring = [(x, 0) for x in line] + [(10, y) for y in line] + [(10 - x, 10) for x in line] + [(0, 10 - y) for y in line]
    other = shapely.box(3, 0, 13, 10).exterior
    expected = np.mean([other.distance(shapely.Point(point)) for point in ring]) * 232
    assert result["boundary_m"]["median"] == pytest.approx(expected, rel=0.01)


def test_invalid_polygons_and_another_system_are_told(mapped: Path, tmp_path: Path) -> None:
    to_degrees = Transformer.from_crs(MARS, CRS(MARS).geodetic_crs, always_xy=True).transform
    bow = shapely.Polygon([square(10, 10, 10).exterior.coords[i] for i in (0, 2, 1, 3)])
    shapes = [shapely.transform(shape, lambda xy: np.stack(to_degrees(*xy.T), 1)) for shape in (TRUTH[2], bow)]
    assert not shapely.is_valid(bow)
    truth = write_truth(tmp_path / "truth.gpkg", shapes, "+proj=longlat +R=3396190 +no_defs")
    result = evaluate_polygons(mapped / "landslides.gpkg", truth)
    assert (result["true"], result["repaired"]) == (2, 1) and result["reprojected"]
    assert result["counts"]["fn"] >= 900


def test_the_inventory_of_a_whole_planet_neither_tears_nor_is_refused(mapped: Path, tmp_path: Path) -> None:
    """The map is at 171.5° east, its system ends at 0°, where a polygon of the planet lies across the end."""
    to_degrees = Transformer.from_crs(MARS, CRS(MARS).geodetic_crs, always_xy=True).transform
    near = [shapely.transform(shape, lambda xy: np.stack(to_degrees(*xy.T), 1)) for shape in TRUTH]
    across = shapely.box(-1, 6.0, 1, 7.0)
    split = shapely.multipolygons([near[0], shapely.box(10, -1, 11, 1)])  # one part is on the map
    alone = evaluate_polygons(mapped, write_truth(tmp_path / "a.gpkg", TRUTH))
    degrees = "+proj=longlat +R=3396190 +no_defs"
    far = [across, shapely.box(10, -89.9, 90, -80), shapely.box(-60, 80, 60, 90)]
    result = evaluate_polygons(mapped, write_truth(tmp_path / "b.gpkg", [split, *near[1:], *far], degrees))
    assert (result["true"], result["outside"]) == (alone["true"], alone["outside"] + 3)
    assert result["counts"] == alone["counts"]
    assert (result["touched"], result["half"], result["false"]) == (alone["touched"], alone["half"], alone["false"])
    # The outline of a landslide that goes on beyond the map is not measured.
    assert result["boundary_m"]["landslides"] == alone["boundary_m"]["landslides"] - 1
    everything = evaluate_polygons(mapped, write_truth(tmp_path / "c.gpkg", [shapely.box(-180, -90, 180, 90)], degrees))
    assert (everything["true"], everything["touched"], everything["false"]) == (1, 1.0, 0.0)
    assert everything["counts"]["fp"] == everything["counts"]["tn"] == 0


@pytest.mark.parametrize("system", ["+proj=ortho +lat_0=5 +lon_0=170 +R=3396190 +units=m", "+proj=stere +lat_0=-90"])
def test_polygons_that_the_system_of_the_map_does_not_reach_are_outside(tmp_path: Path, system: str) -> None:
    crs = f"{system} +R=3396190 +units=m +no_defs"
    path = write_raster(tmp_path / "p.tif", np.full((20, 20), 0.9, np.float32), crs=crs)
    write_mask(path, tmp_path / "mask.tif", Decision())
    write_inventory(tmp_path / "mask.tif", path, path, tmp_path / "landslides.gpkg", ("dem",))
    west, south = Transformer.from_crs(crs, CRS(crs).geodetic_crs, always_xy=True).transform(-498_000, 398_000)
    here = shapely.box(west - 0.02, south - 0.02, west + 0.02, south + 0.02)
    shapes = [here, shapely.box(-15, 85, -5, 90), shapely.box(-11, -6, -9, -4)]
    truth = write_truth(tmp_path / "truth.gpkg", shapes, "+proj=longlat +R=3396190 +no_defs")
    result = evaluate_polygons(tmp_path, truth)
    assert (result["true"], result["outside"], result["touched"]) == (1, 2, 1.0)


@pytest.mark.parametrize(
    "place", [{}, {"crs": "+proj=longlat +R=3396190 +no_defs", "transform": Affine(0.004, 0, 171.5, 0, -0.004, 6.8)}]
)
def test_a_map_without_landslides_has_no_false_alarms(tmp_path: Path, place: dict) -> None:
    path = write_raster(tmp_path / "p.tif", np.zeros((100, 100), np.float32), **place)
    write_mask(path, tmp_path / "mask.tif", Decision())
    write_inventory(tmp_path / "mask.tif", path, path, tmp_path / "landslides.gpkg", ("dem",))
    result = evaluate_polygons(tmp_path, write_truth(tmp_path / "truth.gpkg", TRUTH))
    assert (result["found"], result["touched"], result["false"], result["boundary_m"]) == (0, 0.0, None, None)
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert not mask.read(1).any()


def test_a_missing_map_is_said(mapped: Path, tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth.gpkg", TRUTH)
    with pytest.raises(InputError, match=r"There is no .*landslides.gpkg"):
        evaluate_polygons(tmp_path, truth)
    with pytest.raises(InputError, match=r"none.gpkg"):
        evaluate_polygons(mapped, tmp_path / "none.gpkg")
    with pytest.raises(InputError, match=r"earth.gpkg cannot be brought to the map: .*same planet"):
        evaluate_polygons(mapped, write_truth(tmp_path / "earth.gpkg", TRUTH, "EPSG:32633"))
