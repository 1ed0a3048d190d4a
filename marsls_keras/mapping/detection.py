"""Compare the landslides of a map with the polygons of a true inventory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from marsls_keras.counts import Counts, confusion
from marsls_keras.errors import InputError
from marsls_keras.mapping.geodesy import MAX_EDGE, Body
from marsls_keras.mapping.grid import RasterGrid, crs_name, open_raster
from marsls_keras.mapping.inventory import INVENTORY, LAYER, MASK
from marsls_keras.mapping.near_grid import NearPolygons, near_grid
from marsls_keras.mapping.outline import Outline
from marsls_keras.mapping.raster_strips import RasterStrips
from marsls_keras.mapping.vector_file import read_polygons
from marsls_keras.progress import stage

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

HALF = 0.5
"""Share of its area from which on a landslide counts as half covered."""

_AROUND = 1.0
"""Margin around the map, in its own size, beyond which true landslides are cut off."""


@dataclass(frozen=True)
class _Ground:
    """How true polygons lie on the ground that was mapped.

    Attributes:
        known: bool (N,), whether a part of the polygon was mapped.
        whole: bool (N,), whether all of it was.
        counts: Confusion of the mapped pixels; a pixel is truly landslide if its centre lies in a polygon.
    """

    known: np.ndarray
    whole: np.ndarray
    counts: Counts


def evaluate_polygons(found: Path, truth: Path, layer: str | None = None) -> dict[str, Any]:
    """Score the polygons of a map against those of a true inventory.

    A true landslide is touched if a found one overlaps it, half covered if half of its area is found. A found landslide
    is a false alarm if it overlaps no true one, half false if more than half of its area lies on none. Only ground that
    was mapped counts: true landslides beyond it, or where the raster has no data, are left out.

    Args:
        found: Folder of a map, or the GeoPackage in it; the mask beside it tells the mapped ground.
        truth: File of polygons, in any coordinate system.
        layer: Its layer; the only one with polygons by default.

    Returns:
        "true" and "found", numbers of landslides; "outside", true ones beyond the mapped ground; "repaired", invalid
        true polygons; "reprojected", the truth's coordinate system if it is another, else None; "touched" and "half",
        shares of the true ones; "false" and "half_false", shares of the found ones, each None where there are none;
        "classes", the same numbers for each decade of area in km²; "scores" and "counts" of pixels; "boundary_m", the
        mean distance between the outlines of each true landslide and the found ones that overlap it, as "median" and
        "p90" over "landslides"; None without any.

    Raises:
        InputError: If a file is missing or cannot be used.

    Example:
        >>> evaluate_polygons(Path("map"), Path("truth.gpkg"))["touched"]  # doctest: +SKIP
        0.87
    """
    import shapely

    folder = found if found.is_dir() else found.parent
    path = folder / INVENTORY if found.is_dir() else found
    for needed in (path, folder / MASK):
        if not needed.exists():
            raise InputError(f"There is no {needed}. Give the folder of a map; marsls map writes both files into it.")
    mapped, true = read_polygons(path, LAYER, empty=True), read_polygons(truth, layer)
    with open_raster(folder / MASK) as mask:
        grid = RasterGrid.of(mask)
        around = grid.at(grid.width / 2, grid.height / 2)[0]
        try:
            near = near_grid(true, grid, _AROUND)
        except InputError as error:
            raise InputError(f"{truth} cannot be brought to the map: {error}") from error
        shapes, cut = _features(near)
        predicted = mapped.reprojected(grid.crs, around) if len(mapped.shapes) else mapped
        with stage("Comparing pixels"):
            ground = _on_ground(mask, grid, shapes)
    shapes, whole = shapes[ground.known], (ground.whole & ~cut)[ground.known]
    pixel = float(np.mean(grid.pixel))
    body = Body(grid.crs.to_wkt(), MAX_EDGE * pixel)
    pairs = shapely.STRtree(predicted.shapes).query(shapes, predicate="intersects")
    shared = shapely.area(shapely.intersection(shapes[pairs[0]], predicted.shapes[pairs[1]]))
    pairs, shared = pairs[:, shared > 0], shared[shared > 0]
    covered = _share(pairs[0], shared, shapes)
    right = _share(pairs[1], shared, predicted.shapes)
    with stage("Measuring outlines"):
        distances = _distances(body, shapes, predicted.shapes, pairs[:, whole[pairs[0]]], pixel)
    classes = _classes(
        np.array([body.area(shape) for shape in shapes]),
        np.array([body.area(shape) for shape in predicted.shapes]),
        covered,
        right,
    )
    return {
        "inventory": str(path),
        "truth": str(truth),
        "true": len(shapes),
        "found": len(predicted.shapes),
        "outside": len(true.shapes) - len(shapes),
        "repaired": true.repaired,
        "reprojected": None if true.crs == grid.crs else crs_name(true.crs),
        "touched": _mean(covered > 0),
        "half": _mean(covered >= HALF),
        "false": _mean(right == 0),
        "half_false": _mean(right < HALF),
        "classes": classes,
        "scores": ground.counts.scores(),
        "counts": vars(ground.counts),
        "boundary_m": {
            "median": float(np.median(distances)),
            "p90": float(np.percentile(distances, 90)),
            "landslides": len(distances),
        }
        if distances
        else None,
    }


def _features(near: NearPolygons) -> tuple[np.ndarray, np.ndarray]:
    """Return the features that parts belong to as shapes, object (N,), and whether each was cut, bool (N,)."""
    import shapely

    starts = np.unique(near.feature, return_index=True)[1]
    parts = np.split(near.shapes, starts[1:]) if len(starts) else []
    shapes = [part[0] if len(part) == 1 else shapely.union_all(part) for part in parts]
    return np.array(shapes, dtype=object), near.cut[starts]


def _on_ground(mask: DatasetReader, grid: RasterGrid, shapes: np.ndarray) -> _Ground:
    """Draw true polygons on the grid of a mask, strip by strip, and compare them with it where it is known."""
    import shapely
    from rasterio.features import rasterize

    strips, tree = RasterStrips(mask, 1), shapely.STRtree(shapes)
    seen, unknown = np.zeros(len(shapes), bool), np.zeros(len(shapes), bool)
    counts = Counts(0, 0, 0, 0)
    for position in range(len(strips)):
        start, stop = strips.span(position)
        part = grid.window(start, 0, stop - start, grid.width)
        values = strips.values(position, mask)
        known, size = ~np.ma.getmaskarray(values), (stop - start, grid.width)
        near = np.sort(tree.query(shapely.Polygon(part.outline()), predicate="intersects"))
        truth = np.zeros(size, np.uint8)
        if len(near):
            truth = rasterize(list(shapes[near]), size, transform=part.transform, dtype="uint8")
        for i in near:
            ys, xs = _around(part, shapes[i], size)
            window = part.window(ys.start, xs.start, ys.stop - ys.start, xs.stop - xs.start)
            drawn = rasterize(
                [shapes[i]], (window.height, window.width), transform=window.transform, all_touched=True, dtype="uint8"
            )
            here = known[ys, xs][drawn != 0]
            seen[i] |= bool(here.any())
            unknown[i] |= not here.all()
        counts = counts + confusion(truth, values.data, known).pooled()
    inside = shapely.covered_by(shapes, shapely.Polygon(grid.outline()))
    return _Ground(seen, seen & ~unknown & inside, counts)


def _around(grid: RasterGrid, shape: Any, size: Sequence[int]) -> tuple[slice, slice]:
    """Return the rows and columns of a grid that a shape reaches."""
    import shapely

    left, bottom, right, top = shapely.bounds(shape)
    columns, rows = grid.pixels(np.array([left, right, left, right]), np.array([bottom, bottom, top, top]))
    ends = [
        (max(0, int(np.floor(axis.min())) - 1), min(length, int(np.ceil(axis.max())) + 1))
        for axis, length in ((rows, size[0]), (columns, size[1]))
    ]
    return slice(*ends[0]), slice(*ends[1])


def _share(index: np.ndarray, shared: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Return the share of each shape's area that is shared, at most 1."""
    import shapely

    total = np.bincount(index, weights=shared, minlength=len(shapes))
    return np.minimum(1.0, total / shapely.area(shapes)) if len(shapes) else np.zeros(0)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _distances(body: Body, shapes: np.ndarray, found: np.ndarray, pairs: np.ndarray, pixel: float) -> list[float]:
    """Return the mean distance in metres between the outline of each shape and those of the found ones it overlaps.

    Args:
        body: The body.
        shapes: True landslides.
        found: Found ones.
        pairs: Numbers of those that overlap, int (2, P): of the true one, ascending, and of the found one.
        pixel: Largest distance between points on an outline, in units of the coordinate system.
    """
    # A found landslide may overlap thousands of true ones, so its outline is prepared once.
    outlines = {number: Outline(body, found[number], pixel) for number in np.unique(pairs[1])}
    distances = []
    for number in np.unique(pairs[0]):
        one = Outline(body, shapes[number], pixel)
        others = [outlines[other] for other in pairs[1, pairs[0] == number]]
        there = np.min([other.distance(one.sample) for other in others], axis=0)
        back = one.distance(np.concatenate([other.sample for other in others]))
        distances.append(float(there.mean() + back.mean()) / 2)
    return distances


def _classes(true: np.ndarray, found: np.ndarray, covered: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    """Return the numbers of landslides by decade of area in km².

    Args:
        true: Areas of the true landslides in km².
        found: Areas of the found ones.
        covered: Share of each true one that is found.
        right: Share of each found one that is true.
    """
    both = np.concatenate([true, found])
    if not len(both):
        return []
    decades = np.floor(np.log10(both)).astype(int)
    rows = []
    for decade in range(decades.min(), decades.max() + 1):
        of_true, of_found = (np.floor(np.log10(areas)) == decade for areas in (true, found))
        rows.append(
            {
                "km2": [10.0**decade, 10.0 ** (decade + 1)],
                "true": int(of_true.sum()),
                "touched": int((covered[of_true] > 0).sum()),
                "half": int((covered[of_true] >= HALF).sum()),
                "found": int(of_found.sum()),
                "false": int((right[of_found] == 0).sum()),
                "half_false": int((right[of_found] < HALF).sum()),
            }
        )
    return rows
