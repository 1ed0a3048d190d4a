"""A small region as a composite with its mask, and as a raster for each band."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

from helpers.georeferenced import MARS, RNG, write
from marsls_keras.bands.names import BANDS
from marsls_keras.data.synthetic.mars import make_mosaic
from marsls_keras.datasets import RELEASES
from marsls_keras.mapping.band_sources import BandSource
from marsls_keras.mapping.grid import NO_DATA
from marsls_keras.mapping.stack import ORDER

PLACE = Affine(232, 0, -4_500_000, 0, -232, -200_000)
HEIGHT, WIDTH, SIZE = 52, 86, 16
"""Three tiles and a quarter down, five and three eighths across."""

SHAPE = (40, 48)
"""Height and width of the rasters of single bands."""


def make_ground() -> tuple[np.ndarray, np.ndarray]:
    """Return raw bands (7, H, W) in the challenge's order, and a mask (H, W)."""
    image, mask = make_mosaic(2, 3, 32, seed=2)
    raw = np.moveaxis(RELEASES["challenge"].from_canonical(image), -1, 0)
    return raw[:, :HEIGHT, :WIDTH], mask[:HEIGHT, :WIDTH]


def composite(
    path: Path,
    bands: np.ndarray,
    order: Sequence[str] = ORDER,
    transform: Affine = PLACE,
    crs: str | None = MARS,
    **options: object,
) -> Path:
    """Write a composite whose bands have descriptions."""
    write(path, bands, transform, crs, **{"nodata": NO_DATA, **options})
    with rasterio.open(path, "r+") as file:
        file.descriptions = tuple(order)
    return path


def write_sources(folder: Path) -> tuple[list[BandSource], dict[str, np.ndarray]]:
    """Write all bands but slope on one grid, with values as the challenge has them; return them and their values."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    values = {name: RNG.uniform(20, 200, SHAPE).astype(np.float32) for name in BANDS if name != "slope"}
    values["dem"] = (300 * np.sin(x / 7) * np.cos(y / 5) - 2000).astype(np.float32)
    files = {name: write(folder / f"{name}.tif", band[None]) for name, band in values.items()}
    return [BandSource(name, str(path), 1) for name, path in files.items()], values
