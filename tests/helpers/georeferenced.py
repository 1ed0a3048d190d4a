"""Georeferenced tiles written by rasterio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

MARS = "+proj=eqc +lat_ts=0 +lat_0=0 +lon_0=0 +x_0=0 +y_0=0 +R=3396190 +units=m +no_defs"
PLACE = Affine(10, 0, 5000, 0, -10, 8000)
RNG = np.random.default_rng(0)


def write(path: Path, bands: np.ndarray, transform: Affine | None = PLACE, crs: str | None = MARS, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff",
        "count": len(bands),
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype,
    }
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform, **options) as file:
        file.write(bands)
    return path


def image(size: int = 32) -> np.ndarray:
    return RNG.random((7, size, size), dtype=np.float32)


def mask(size: int = 32) -> np.ndarray:
    return (RNG.random((1, size, size)) < 0.3).astype(np.uint8)
