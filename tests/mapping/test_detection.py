"""A map's polygons against true ones, on squares whose overlaps are known."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
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
    ring = [*ring, (0, 0)]  # a ring's first point is also its last
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


def test_a_map_without_landslides_has_no_false_alarms(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "p.tif", np.zeros((100, 100), np.float32))
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
