"""Polygons of a whole planet that are near a raster, in the raster's coordinate system."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marsls_keras.mapping.grid import RasterGrid, to_map
from marsls_keras.mapping.vector_file import Polygons

_MARGIN = 0.1
"""Margin around a grid, in its own size, within which polygons are looked at; edges of the margin are not straight."""


_FAR = 1e12  # further than any map reaches


@dataclass(frozen=True)
class NearPolygons:
    """Parts of polygons that are near a grid, in its coordinate system.

    Attributes:
        shapes: Polygons and multipolygons of shapely, object (N,).
        feature: Number of the feature that each is a part of, int (N,), ascending.
        cut: Whether a part of its feature was cut or left out, bool (N,).

    Example:
        >>> near_grid(read_polygons("planet.gpkg"), grid).cut.any()  # doctest: +SKIP
        False
    """

    shapes: np.ndarray
    feature: np.ndarray
    cut: np.ndarray


def near_grid(polygons: Polygons, grid: RasterGrid, margin: float = _MARGIN) -> NearPolygons:
    """Return what is near a grid of polygons of a whole planet, moved to the grid's coordinate system.

    A polygon far away may lie across the meridian where that system ends, and would be torn apart and cover the grid;
    or the system does not reach it at all.

    Args:
        polygons: The polygons.
        grid: The grid.
        margin: Margin around the grid, in its own size; what lies beyond is cut off.

    Raises:
        InputError: If there is no transformation.

    Example:
        >>> len(near_grid(read_polygons("planet.gpkg"), grid).shapes)  # doctest: +SKIP
        31
    """
    import shapely

    mesh = np.linspace(0, 1, 33)
    columns, rows = np.meshgrid(mesh * grid.width, mesh * grid.height)
    middle_x, middle_y = (np.array([part]) for part in grid.at(grid.width / 2, grid.height / 2))
    around = float(to_map(grid.crs, polygons.crs, middle_x, middle_y)[0][0])
    x, y = to_map(grid.crs, polygons.crs, *grid.at(columns, rows), around=around)
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return NearPolygons(np.empty(0, object), np.empty(0, int), np.empty(0, bool))
    left, right, bottom, top = x[known].min(), x[known].max(), y[known].min(), y[known].max()
    wide, high = margin * (right - left), margin * (top - bottom)
    outer, feature = shapely.get_parts(polygons.shapes, return_index=True)
    parts, inner = shapely.get_parts(outer, return_index=True)
    feature = feature[inner]
    if polygons.crs.is_geographic:
        west, _, east, _ = shapely.bounds(parts).T
        turns = np.round(((west + east) / 2 - around) / 360)
        parts = np.array(
            [shapely.transform(part, lambda xy, k=k: xy - (360 * k, 0)) for part, k in zip(parts, turns, strict=True)],
            dtype=object,
        )
        if right - left > 180:  # around a pole there is no far side
            left, right = -np.inf, np.inf
            bottom, top = (bottom, 90) if bottom + top > 0 else (-90, top)
    left, bottom, right, top = (
        float(end) for end in np.clip((left - wide, bottom - high, right + wide, top + high), -_FAR, _FAR)
    )
    frame = shapely.box(left, bottom, right, top)
    beyond = ~shapely.covered_by(parts, frame)
    cut = np.isin(feature, feature[beyond])
    parts[beyond] = shapely.clip_by_rect(parts[beyond], left, bottom, right, top)
    near = shapely.area(parts) > 0
    parts, feature, cut = parts[near], feature[near], cut[near]
    if len(parts):
        parts = Polygons(parts, polygons.crs).reprojected(grid.crs, around=float(middle_x[0])).shapes
    return NearPolygons(parts, feature, cut)
