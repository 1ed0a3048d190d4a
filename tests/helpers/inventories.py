"""Small rasters for the tests of maps and inventories, written with rasterio."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from scipy import ndimage

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
