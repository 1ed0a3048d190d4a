"""Resample bands of rasters to another grid of pixels, window by window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.warp import reproject

from marsls_keras.errors import InputError
from marsls_keras.mapping.grid import NO_DATA, Dataset, RasterGrid, reading, to_map

_MESH = 65
"""Points a side at which overlap and density of two grids are looked at."""

_FINER = 0.95
"""A source whose pixels have less than this length of side, in pixels of the target, is finer."""


@dataclass(frozen=True)
class Warp:
    """Resampling of one band of a raster to a grid.

    Attributes:
        raster: The open raster.
        band: Number of the band, from 1 on.
        grid: The target.
        method: "bilinear", "average" or "nearest".
        ratio: Length of a source pixel's side in pixels of the target, about.

    Example:
        >>> Warp.to_grid(rasterio.open("dem.tif"), 1, grid).method  # doctest: +SKIP
        'bilinear'
    """

    raster: Dataset
    band: int
    grid: RasterGrid
    method: str
    ratio: float

    @classmethod
    def to_grid(cls, raster: Dataset, band: int, grid: RasterGrid, method: str | None = None) -> Warp:
        """Choose how a band is resampled, and check that the two grids overlap.

        Args:
            raster: The open raster.
            band: Number of the band, from 1 on.
            grid: The target.
            method: "nearest" for classes; by default "average" if the source is finer than the target, else "bilinear".

        Raises:
            InputError: If raster and grid do not overlap, or are of different planets.
        """
        ratio = _ratio(RasterGrid.of(raster), grid, str(raster.name))
        return cls(raster, band, grid, method or ("average" if ratio < _FINER else "bilinear"), ratio)

    def read(self, row: int, column: int, height: int, width: int) -> np.ndarray:
        """Return a window of the grid, float32 (height, width), in physical units, NaN where there is no data.

        Raises:
            InputError: If the file is damaged.
        """
        raster, place = self.raster, self.grid.window(row, column, height, width)
        values = np.full((height, width), np.nan, np.float32)
        empty = raster.nodatavals[self.band - 1]
        alphas = [i for i, kind in enumerate(raster.colorinterp, 1) if kind == ColorInterp.alpha]
        with reading(raster.name):
            reproject(
                rasterio.band(raster, self.band),
                values,
                src_nodata=NO_DATA if empty is None and raster.dtypes[self.band - 1].startswith("float") else empty,
                src_alpha=alphas[0] if alphas else 0,
                dst_transform=place.transform,
                dst_crs=place.crs,
                dst_nodata=np.nan,
                resampling=Resampling[self.method],
                tolerance=0.0,  # a window gives what the whole grid would give
                # Where a window crosses the source's 180° meridian, GDAL would take the source for much finer.
                **({"XSCALE": 1, "YSCALE": 1} if self.method == "bilinear" else {}),
            )
        return values * np.float32(raster.scales[self.band - 1]) + np.float32(raster.offsets[self.band - 1])


def _ratio(source: RasterGrid, target: RasterGrid, name: str) -> float:
    """Return the length of a source pixel's side in pixels of the target, where the two overlap.

    Raises:
        InputError: If they do not overlap.
    """
    try:
        density = _density(target, source)
        if density.size:
            return float(np.sqrt(1 / np.median(density)))
        density = _density(source, target)  # a source that is smaller than the distance of the points above
        if density.size:
            return float(np.sqrt(np.median(density)))
    except InputError as error:
        raise InputError(f"{name} cannot be brought to the grid: {error}") from error
    raise InputError(
        f"{name} does not overlap the grid. It has {source.to_text()}; the grid has {target.to_text()}. "
        "Are both of the same region, and are their coordinate systems right?"
    )


def _density(one: RasterGrid, other: RasterGrid) -> np.ndarray:
    """Return the number of pixels of `other` in a pixel of `one`, at those points of a mesh that lie in both."""
    mesh = np.linspace(0, 1, _MESH)
    column, row = (part.ravel() for part in np.meshgrid(mesh * one.width, mesh * one.height))
    points = [_pixels(one, other, column + right, row + down) for right, down in ((0, 0), (1, 0), (0, 1))]
    (x, y), (x1, y1), (x2, y2) = points
    with np.errstate(invalid="ignore"):
        inside = (x >= 0) & (x <= other.width) & (y >= 0) & (y <= other.height)
        area = np.abs((x1 - x) * (y2 - y) - (x2 - x) * (y1 - y))
    return area[inside & np.isfinite(area) & (area > 0)]


def _pixels(one: RasterGrid, other: RasterGrid, column: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where points of `one`, in its pixels, lie in pixels of `other`."""
    middle, _ = other.at(other.width / 2, other.height / 2)
    with np.errstate(invalid="ignore"):
        return other.pixels(*to_map(one.crs, other.crs, *one.at(column, row), around=middle))
