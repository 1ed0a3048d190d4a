"""Bring landslide labels to the grid of a composite: a mask raster, or the polygons of an inventory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rasterio.features import rasterize

from marsls_keras.errors import InputError
from marsls_keras.mapping.grid import RasterGrid, crs_name, open_raster
from marsls_keras.mapping.near_grid import near_grid
from marsls_keras.mapping.vector_file import Polygons, read_polygons
from marsls_keras.mapping.warp import Warp

VECTORS = (".gpkg", ".shp", ".geojson", ".json", ".fgb", ".gml", ".kml", ".sqlite")
"""Endings of vector files; everything else is taken as a raster."""


class Labels(Protocol):
    """Labels on the grid of a composite.

    Attributes:
        note: How they were brought to it, a sentence for the user.

    Example:
        >>> with open_labels("mask.tif", grid) as labels:  # doctest: +SKIP
        ...     labels.read(0, 0, 128, 128).mean()
        0.35
    """

    note: str

    def read(self, row: int, column: int, height: int, width: int) -> np.ndarray:
        """Return a window of the grid, uint8 (height, width) of {0, 1}."""


@contextmanager
def open_labels(path: str | Path, grid: RasterGrid, layer: str | None = None) -> Iterator[Labels]:
    """Open a mask or an inventory, and bring it to a grid.

    In a mask 1 is landslide and every other value, no-data included, is not; a mask on another grid is resampled to the
    nearest neighbour (Paheding et al. 2026, section 2.2). Polygons are moved to the grid's coordinate system, and a
    pixel is landslide if its centre lies in one. Invalid polygons are repaired.

    Args:
        path: Raster of one band, or a vector file, which the endings `VECTORS` tell.
        grid: The grid.
        layer: Layer of a vector file; by default the only one that holds polygons.

    Raises:
        InputError: If the labels cannot be read, have no coordinate system, or do not overlap the grid.

    Example:
        >>> with open_labels("inventory.gpkg", grid) as labels:  # doctest: +SKIP
        ...     labels.note
        '31 polygons.'
    """
    if Path(path).suffix.lower() in VECTORS:
        yield _Inventory(str(path), read_polygons(path, layer), grid)
        return
    if layer is not None:
        raise InputError(
            f"--layer {layer}: {path} is taken as a raster, which has none. Vector files end in one of "
            f"{', '.join(VECTORS)}."
        )
    with open_raster(path) as raster:
        if raster.count != 1:
            raise InputError(f"{path} has {raster.count} bands; expected one, with 1 for landslide.")
        yield _Mask(raster, grid)


class _Mask:
    """Labels from a raster: 1 is landslide, all else is not."""

    def __init__(self, raster: Any, grid: RasterGrid) -> None:
        own = RasterGrid.of(raster)
        self._warp = Warp.to_grid(raster, 1, grid, "nearest")
        if own.same_as(grid):
            self.note = "The mask has the grid of the composite."
        else:
            other = "" if own.crs == grid.crs else f" of {crs_name(own.crs)}"
            self.note = f"The mask was resampled from its own grid{other} (nearest neighbour): {own.to_text()}."

    def read(self, row: int, column: int, height: int, width: int) -> np.ndarray:
        return (self._warp.read(row, column, height, width) == 1).astype(np.uint8)


class _Inventory:
    """Labels from polygons: pixels whose centre lies in one."""

    def __init__(self, path: str, polygons: Polygons, grid: RasterGrid) -> None:
        import shapely

        self._grid = grid
        self.note = f"{len(polygons.shapes)} polygons"
        if polygons.crs != grid.crs:
            self.note += f", reprojected from {crs_name(polygons.crs)} to the composite's coordinate system"
        if polygons.repaired:
            self.note += f"; {polygons.repaired} were invalid and were repaired"
        if polygons.ignored:
            self.note += f"; {polygons.ignored} features that are no polygons were left out"
        self.note += "."
        try:
            self._shapes = near_grid(polygons, grid).shapes
        except InputError as error:
            raise InputError(f"{path} cannot be brought to the composite: {error}") from error
        self._tree = shapely.STRtree(self._shapes)
        if not len(self._tree.query(shapely.Polygon(grid.outline()))):
            left, bottom, right, top = shapely.total_bounds(polygons.shapes)
            raise InputError(
                f"No polygon of {path} lies on the composite. In {crs_name(polygons.crs)} they reach from "
                f"x {left:.9g} to {right:.9g}, y {bottom:.9g} to {top:.9g}; the composite is {crs_name(grid.crs)}, "
                f"{grid.to_text()}."
            )

    def read(self, row: int, column: int, height: int, width: int) -> np.ndarray:
        import shapely

        place = self._grid.window(row, column, height, width)
        # Polygons are cut to a little more than the window, so that a large one is not drawn anew for each tile.
        around = self._grid.window(row - 2, column - 2, height + 4, width + 4)
        xs, ys = zip(*around.outline(), strict=True)
        near = self._shapes[self._tree.query(shapely.box(min(xs), min(ys), max(xs), max(ys)))]
        cut = shapely.clip_by_rect(near, min(xs), min(ys), max(xs), max(ys))
        drawn = [shape for shape in cut if shape.area > 0]
        if not drawn:
            return np.zeros((height, width), np.uint8)
        return rasterize(drawn, (height, width), transform=place.transform, dtype="uint8")
