"""Small rasters and polygons for the tests of maps and inventories."""

from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import rasterio
import shapely
from affine import Affine
from pyproj import CRS
from scipy import ndimage

from marsls_keras.inference.decision import Decision
from marsls_keras.mapping.inventory import write_inventory, write_mask

MARS = "+proj=eqc +lat_ts=0 +lon_0=180 +R=3396190 +units=m +no_defs"
"""Equidistant cylindrical system of Mars, without an EPSG code."""

NORTH_UP = Affine(232.0, 0.0, -500_000.0, 0.0, -232.0, 400_000.0)


def field(seed: int, shape: tuple[int, int] = (150, 110), sigma: float = 3.0) -> np.ndarray:
    """Return a smooth random field in [0, 1], float32."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return ((values - values.min()) / np.ptp(values)).astype(np.float32)


def write_raster(path: Path, values: np.ndarray, nodata: float | None = None, **options: Any) -> Path:
    """Write an array (H, W) or (C, H, W) as GeoTIFF, in `MARS` unless another `crs` is given."""
    values = values[None] if values.ndim == 2 else values
    profile = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
    place = {"crs": MARS, "transform": NORTH_UP, "nodata": nodata}
    with rasterio.open(path, "w", driver="GTiff", **{**profile, **place, **options}) as target:
        target.write(values)
    return path


def square(left: float, top: float, side: float) -> shapely.Polygon:
    """Return a square in pixels as a polygon of the map."""
    a, e, c, f = NORTH_UP.a, NORTH_UP.e, NORTH_UP.c, NORTH_UP.f
    return shapely.box(c + a * left, f + e * (top + side), c + a * (left + side), f + e * top)


def write_truth(path: Path, shapes: list[shapely.Polygon], crs: str = MARS) -> Path:
    wkb = shapely.to_wkb(np.array(shapes, object))
    options = {"layer": "truth", "driver": "GPKG", "geometry_type": "Unknown", "crs": CRS(crs).to_wkt()}
    pyogrio.raw.write(path, wkb, [np.arange(len(shapes))], ["id"], **options)
    return path


def write_map(folder: Path) -> Path:
    """Write mask and polygons of a map with four found squares, and no data in the rightmost 20 columns."""
    folder.mkdir(exist_ok=True)
    probability = np.zeros((100, 100), np.float32)
    for left, top, side in ((10, 10, 10), (40, 10, 10), (10, 50, 4), (60, 60, 6)):
        probability[top : top + side, left : left + side] = 0.9
    probability[:, 80:] = np.nan
    path = write_raster(folder / "p.tif", probability, np.nan)
    write_mask(path, folder / "mask.tif", Decision(), rows=37)
    write_inventory(folder / "mask.tif", path, path, folder / "landslides.gpkg", ("dem",), simplify=0)
    return folder


TRUTH = [
    square(10, 10, 10),  # found exactly
    square(47, 10, 10),  # three of ten columns are found
    square(20, 70, 30),  # missed
    square(85, 10, 5),  # where the raster has no data
    square(300, 300, 5),  # beyond the raster
]
