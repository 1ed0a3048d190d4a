"""Compute slope in degrees from a DEM, as `gdaldem slope` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.crs import CRS

from marsls_keras.errors import InputError
from marsls_keras.mapping.grid import NO_DATA, RasterGrid, open_raster, read_band
from marsls_keras.progress import tracked

_ROWS = 512  # rows at a time, which bounds the memory


def horn_slope(heights: np.ndarray, width: float | np.ndarray, height: float | np.ndarray) -> np.ndarray:
    """Compute slope by the method of Horn, from differences over the 3 x 3 pixels around each one.

    Horn, "Hill shading and the reflectance map", Proceedings of the IEEE 69, 1981; the weights of `gdaldem slope`.

    Args:
        heights: float64 (H, W), metres, NaN where unknown.
        width: Width of a pixel in metres, or of the pixels of each row, (H, 1).
        height: Height of a pixel in metres, likewise.

    Returns:
        Degrees, float64 (H, W); NaN at the border and wherever one of the nine heights is unknown.

    Example:
        >>> rises = np.arange(5.0) * np.ones((5, 1))  # to the east by 1 m a pixel
        >>> horn_slope(rises, 1.0, 1.0)[2, 2].round(9)
        np.float64(45.0)
    """
    slope = np.full(heights.shape, np.nan)
    if min(heights.shape) < 3:
        return slope
    rows, columns = heights.shape[0] - 2, heights.shape[1] - 2
    z = [[heights[i : i + rows, j : j + columns] for j in range(3)] for i in range(3)]
    across = (z[0][2] + 2 * z[1][2] + z[2][2]) - (z[0][0] + 2 * z[1][0] + z[2][0])
    down = (z[2][0] + 2 * z[2][1] + z[2][2]) - (z[0][0] + 2 * z[0][1] + z[0][2])
    width, height = (size[1:-1] if isinstance(size, np.ndarray) else size for size in (width, height))
    steepness = np.degrees(np.arctan(np.hypot(across / (8 * width), down / (8 * height))))
    slope[1:-1, 1:-1] = np.where(np.isnan(z[1][1]), np.nan, steepness)  # the centre has weight 0
    return slope


def write_slope(dem: str | Path, band: int, out: Path) -> None:
    """Write the slope of a DEM as a GeoTIFF on the DEM's own grid, in degrees.

    In a projected coordinate system pixels have the size that the file says, in metres; in a geographic one the size
    that they have at their row's latitude on the body's ellipsoid.

    Args:
        dem: The DEM, in metres after its scale and offset.
        band: Number of the band, from 1 on.
        out: File to write.

    Raises:
        InputError: If the DEM cannot be read.

    Example:
        >>> write_slope("dem.tif", 1, Path("slope.tif"))  # doctest: +SKIP
    """
    with open_raster(dem) as raster:
        grid = RasterGrid.of(raster)
        width, height = pixel_metres(grid)
        profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "nodata": NO_DATA, "BIGTIFF": "IF_SAFER"}
        profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
        size = {"height": grid.height, "width": grid.width, "crs": grid.crs, "transform": grid.transform}
        with rasterio.open(out, "w", **profile, **size) as file:
            for first in tracked("Computing slope", range(0, grid.height, _ROWS)):
                end = min(first + _ROWS, grid.height)
                seen = slice(max(0, first - 1), min(end + 1, grid.height))
                slope = horn_slope(read_band(raster, band, seen), width[seen], height[seen])
                part = slope[first - seen.start : end - seen.start]
                window = rasterio.windows.Window(0, first, grid.width, end - first)
                file.write(np.where(np.isnan(part), NO_DATA, part).astype(np.float32), 1, window=window)


def pixel_metres(grid: RasterGrid) -> tuple[np.ndarray, np.ndarray]:
    """Return width and height of the pixels of each row in metres, two float64 (H, 1).

    Raises:
        InputError: If the grid is in degrees and rotated.

    Example:
        >>> from rasterio.transform import Affine
        >>> grid = RasterGrid(CRS.from_string("IAU_2015:49900"), Affine(1, 0, 0, 0, -1, 60.5), 2, 4)
        >>> width, height = pixel_metres(grid)  # 1° of Mars at 60° N, and on a meridian
        >>> int(width[0, 0]), int(height[0, 0])
        (29637, 59274)
    """
    width, height = grid.pixel
    ones = np.ones((grid.height, 1))
    if not grid.crs.is_geographic:
        metres = grid.crs.linear_units_factor[1]
        return ones * width * metres, ones * height * metres
    if not grid.upright:
        raise InputError("A DEM in degrees whose rows do not run along parallels has no slope here. Warp it first.")
    radians = grid.crs.units_factor[1]
    latitude = (grid.transform.f + grid.transform.e * (np.arange(grid.height)[:, None] + 0.5)) * radians
    axis, flattening = ellipsoid(grid.crs)
    squared = flattening * (2 - flattening)
    bend = 1 - squared * np.sin(latitude) ** 2
    return (
        width * radians * axis * np.cos(latitude) / np.sqrt(bend),
        height * radians * axis * (1 - squared) / bend**1.5,
    )


def ellipsoid(crs: CRS) -> tuple[float, float]:
    """Return semi-major axis in metres and flattening of the ellipsoid of a coordinate system, of any body.

    Example:
        >>> ellipsoid(CRS.from_string("IAU_2015:49900")), ellipsoid(CRS.from_epsg(4326))[0]
        ((3396190.0, 0.0), 6378137.0)
    """
    found = _find(crs.to_dict(projjson=True), "ellipsoid")
    axis = _metres(found.get("radius", found.get("semi_major_axis")))
    if "inverse_flattening" in found:
        return axis, 1 / float(found["inverse_flattening"])
    return axis, 1 - _metres(found.get("semi_minor_axis", axis)) / axis


def _find(value: Any, key: str) -> dict[str, Any]:
    """Return the first dictionary under a key at any depth; {} if there is none."""
    if isinstance(value, dict):
        if isinstance(value.get(key), dict):
            return value[key]
        value = list(value.values())
    if isinstance(value, list):
        return next((found for part in value if (found := _find(part, key))), {})
    return {}


def _metres(value: Any) -> float:
    """Return a length of PROJJSON in metres: a number, or a value with its unit."""
    if isinstance(value, dict):
        return float(value["value"]) * float(value["unit"]["conversion_factor"])
    return float(value)
