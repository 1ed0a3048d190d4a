"""Write a synthetic region: rasters as their missions publish them, and the true landslides as polygons."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio import features
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject, transform_bounds
from scipy import ndimage

from marsls_keras.data.synthetic.mars import make_mosaic
from marsls_keras.datasets import RELEASES
from marsls_keras.datasets.mars import TILE_METRES
from marsls_keras.errors import InputError
from marsls_keras.files import atomic_folder
from marsls_keras.mapping.grid import NO_DATA, RasterGrid
from marsls_keras.mapping.polygons import write_layer
from marsls_keras.mapping.vector_file import Polygons, require_geo
from marsls_keras.progress import stage

MAP = "IAU_2015:49910"
"""Coordinate system of colours and heights: Mars, equirectangular, metres."""

GEOGRAPHIC = "IAU_2015:49900"
"""Longitudes and latitudes on Mars."""

_SINUSOIDAL = "+proj=sinu +lon_0=-75 +R=3396190 +units=m +no_defs"
_DEGREE = float(np.radians(3_396_190))  # metres of a degree of latitude on Mars
_WEST, _NORTH = -4_500_000.0, -200_000.0  # map x and y of the region's corner
_SIZE = 128  # pixels of a tile, which the terrain is scaled by
_MARGIN = 16  # pixels around the region that the finer rasters cover, too
_MOST = 2048 * 2048
"""Most pixels of a region; generating it takes about 350 bytes a pixel."""


def write_region(out: str | Path, width: int, height: int, seed: int = 0) -> dict[str, Any]:
    """Write the rasters and the inventory of a synthetic region; the folder appears whole or not at all.

    Resolutions and projections differ as those of the sources of MMLSv2 do (Paheding et al. 2026, section 2.1):

    - colour.tif: red, green and blue, 232 m, equirectangular, the region's own grid of width x height pixels;
    - dem.tif: heights in metres, 200 m, equirectangular;
    - thermal.tif: thermal inertia, 100 m, degrees with longitudes from 0 to 360;
    - gray.tif: panchromatic, 58 m, sinusoidal;
    - landslides.gpkg: one polygon per landslide, degrees with longitudes from -180 to 180.

    Slope is not there: `marsls_keras.mapping.stack` computes it.

    Args:
        out: Folder to write; it must not exist or must be empty.
        width: Width of the region in pixels of 232 m, at least 64.
        height: Height.
        seed: Equal arguments give equal files.

    Returns:
        "out", "files", "landslides" (number of polygons) and "landslide_share" of the region.

    Raises:
        InputError: If the folder is not empty, a number is out of range, or the extra geo is not installed.
        RunError: If the files cannot be written.

    Example:
        >>> write_region("region", 512, 384)["landslides"]  # doctest: +SKIP
        31
    """
    if min(width, height) < 64 or width * height > _MOST or seed < 0:
        raise InputError(
            f"A region has at least 64 x 64 and at most {_MOST} pixels, and a seed of 0 or more. "
            f"Received: {width} x {height}, seed {seed}."
        )
    require_geo()
    rows, columns = (ceil((side + 2 * _MARGIN) / _SIZE) for side in (height, width))
    with atomic_folder(out) as folder, stage("Making the region", 6) as done:
        image, mask = make_mosaic(rows, columns, _SIZE, seed)
        whole = np.s_[: height + 2 * _MARGIN, : width + 2 * _MARGIN]
        raw = RELEASES["challenge"].from_canonical(image[whole])
        bands = dict(zip(RELEASES["challenge"].order, np.moveaxis(raw, -1, 0), strict=True))
        pixel = TILE_METRES / _SIZE
        wide = RasterGrid(CRS.from_string(MAP), Affine(pixel, 0, _WEST, 0, -pixel, _NORTH), *raw.shape[:2])
        region = wide.window(_MARGIN, _MARGIN, height, width)
        inner = np.s_[_MARGIN : _MARGIN + height, _MARGIN : _MARGIN + width]
        done.advance()

        colours = {name: np.rint(bands[name][inner]).astype(np.uint8) for name in ("red", "green", "blue")}
        _write(folder / "colour.tif", colours, region, photometric="RGB")
        done.advance()
        for name, crs, fine, kind, turned in (
            ("dem", MAP, 200.0, "float32", False),
            ("thermal", GEOGRAPHIC, 100.0, "float32", True),
            ("gray", _SINUSOIDAL, 58.0, "uint8", False),
        ):
            grid = _cover(wide, CRS.from_string(crs), fine)
            values = _resampled(bands[name], wide, grid)
            if turned:
                a, b, c, d, e, f = grid.transform[:6]
                grid = RasterGrid(grid.crs, Affine(a, b, c % 360, d, e, f), grid.height, grid.width)
            empty = np.isnan(values)
            if kind == "uint8":  # 0 is no data
                stored = np.where(empty, 0, np.clip(np.rint(values), 1, 255)).astype(np.uint8)
            else:
                stored = np.where(empty, NO_DATA, values).astype(np.float32)
            _write(folder / f"{name}.tif", {name: stored}, grid, nodata=0 if kind == "uint8" else NO_DATA)
            done.advance()
        number = _write_inventory(folder / "landslides.gpkg", mask[whole][inner], region)
    files = ["colour.tif", "dem.tif", "thermal.tif", "gray.tif", "landslides.gpkg"]
    share = float(mask[whole][inner].mean())
    return {"out": str(out), "files": files, "landslides": number, "landslide_share": share}


def _cover(wide: RasterGrid, crs: CRS, metres: float) -> RasterGrid:
    """Return a grid of pixels of about `metres` that covers another grid but half its margin."""
    xs, ys = zip(*wide.window(8, 8, wide.height - 16, wide.width - 16).outline(), strict=True)
    left, bottom, right, top = transform_bounds(wide.crs, crs, min(xs), min(ys), max(xs), max(ys))
    side = metres / (_DEGREE if crs.is_geographic else 1.0)
    return RasterGrid(crs, Affine(side, 0, left, 0, -side, top), int((top - bottom) / side), int((right - left) / side))


def _resampled(band: np.ndarray, wide: RasterGrid, grid: RasterGrid) -> np.ndarray:
    """Interpolate a band of the region on another grid, float32, NaN where the region does not reach."""
    values = np.full((grid.height, grid.width), np.nan, np.float32)
    reproject(
        band,
        values,
        src_transform=wide.transform,
        src_crs=wide.crs,
        src_nodata=np.nan,
        dst_transform=grid.transform,
        dst_crs=grid.crs,
        dst_nodata=np.nan,
        resampling=Resampling.bilinear,
    )
    return values


def _write(path: Path, bands: dict[str, np.ndarray], grid: RasterGrid, **options: Any) -> None:
    profile = {"driver": "GTiff", "count": len(bands), "compress": "deflate", "tiled": True}
    place = {"crs": grid.crs, "transform": grid.transform, "height": grid.height, "width": grid.width}
    kind = next(iter(bands.values())).dtype
    with rasterio.open(path, "w", **profile, **place, dtype=kind, blockxsize=256, blockysize=256, **options) as file:
        file.write(np.stack(list(bands.values())))
        file.descriptions = tuple(bands)


def _write_inventory(path: Path, mask: np.ndarray, grid: RasterGrid) -> int:
    """Write one polygon per 8-connected component of a mask, in degrees; return their number."""
    import shapely

    labels, number = ndimage.label(mask, np.ones((3, 3)))
    parts: list[list[Any]] = [[] for _ in range(number)]
    for shape, value in features.shapes(labels.astype(np.int32), mask.astype(bool), transform=grid.transform):
        outer, *holes = shape["coordinates"]
        parts[int(value) - 1].append(shapely.Polygon(outer, holes))  # parts that touch at corners only are separate
    shapes = np.array([shapely.multipolygons(found) for found in parts], dtype=object)
    crs = CRS.from_string(GEOGRAPHIC)
    moved = Polygons(shapes, grid.crs).reprojected(crs, around=_WEST / _DEGREE)
    write_layer(path, "landslides", moved.shapes, crs.to_wkt(), {"id": np.arange(1, number + 1)})
    return int(number)
