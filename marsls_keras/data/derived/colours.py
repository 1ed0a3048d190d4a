"""Derived bands of RMAU-Net, Table V: indices, filters and edges of the colours, each tile by itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

Bands = dict[str, np.ndarray]


def _stretched(band: np.ndarray) -> np.ndarray:
    """Return (x - min) / (max - min); 0 for a constant band."""
    low, high = band.min(), band.max()
    return (band - low) / (high - low) if high > low else np.zeros_like(band)


def _index(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return (a - b) / (a + b), clipped to [-1, 1], where it always lies for reflectances; 0 where the sum is 0."""
    total = first + second
    return np.clip(np.divide(first - second, total, out=np.zeros_like(total), where=total != 0), -1, 1)


def _gray(tile: Bands) -> np.ndarray:
    return (tile["red"] + tile["green"] + tile["blue"]) / 3


def _canny(tile: Bands) -> np.ndarray:
    from skimage.feature import canny

    return canny(_stretched(_gray(tile)), sigma=1.0, low_threshold=0.1, high_threshold=0.2, mode="nearest").astype(
        float
    )


COLOURS: dict[str, Callable[[Bands], np.ndarray]] = {
    "min_max_red": lambda tile: _stretched(tile["red"]),
    "min_max_green": lambda tile: _stretched(tile["green"]),
    "min_max_blue": lambda tile: _stretched(tile["blue"]),
    "ndvi": lambda tile: _index(tile["nir"], tile["red"]),
    "ndmi": lambda tile: _index(tile["nir"], tile["swir1"]),
    "nbr": lambda tile: _index(tile["nir"], tile["swir2"]),
    "gray_rgb": _gray,
    "gaussian_gray": lambda tile: ndimage.gaussian_filter(_gray(tile), 10 / 6, mode="nearest", radius=5),
    "median_gray": lambda tile: ndimage.median_filter(_gray(tile), 11, mode="nearest"),
    "gradient_rows": lambda tile: np.gradient(_gray(tile), axis=0),
    "gradient_columns": lambda tile: np.gradient(_gray(tile), axis=1),
    "canny": _canny,
}
"""From bands float64 (H, W) by name to the derived band (H, W).

The bands 15 to 26 of Table V for Landslide4Sense, where B2, B3, B4, B8, B11, B12 are blue, green, red, nir, swir1,
swir2; on tiles of Mars, which have no infrared, those of the colours exist. gray_rgb is the table's gray; a tile of
Mars has a band gray of its own, another picture. What the table leaves open: minimum and maximum are those of the tile.
"Kernel size 10 x 10" has no middle, so that a mirrored tile would get another result than the mirrored band; here it is
11 x 11, the Gaussian with a deviation of 10 / 6 pixels (three of them on each side). The gradient is that of central
differences, its components are a vector. Canny (deviation 1 pixel, thresholds 0.1 and 0.2) sees gray brought to [0, 1];
Canny, "A computational approach to edge detection", IEEE TPAMI 8, 1986. """
