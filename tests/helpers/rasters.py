"""Rasters written by rasterio alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine, from_origin

MARS = "+proj=eqc +lat_ts=0 +lat_0=0 +lon_0=0 +x_0=0 +y_0=0 +R=3396190 +units=m +no_defs"
NORTH_UP = from_origin(-4_500_000.0, -200_000.0, 232.0, 232.0)


def write_raster(
    path: Path,
    image: np.ndarray,
    names: Sequence[str] = (),
    crs: str | None = MARS,
    transform: Affine = NORTH_UP,
    tiled: bool = True,
    **options: Any,
) -> Path:
    """Write an image (H, W, C) as a compressed GeoTIFF, in blocks of 256 pixels or in strips."""
    height, width, bands = image.shape
    blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256} if tiled else {}
    profile = {"driver": "GTiff", "height": height, "width": width, "count": bands, "dtype": image.dtype}
    with rasterio.open(
        path, "w", **profile, crs=crs, transform=transform, compress="deflate", **blocks, **options
    ) as file:
        file.write(np.moveaxis(image, -1, 0))
        if names:
            file.descriptions = tuple(names)
    return path
