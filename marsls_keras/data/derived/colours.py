"""Derived bands of RMAU-Net, Table V: spectral indices, filters and edges, computed for each tile by itself."""

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
    """Return the normalised difference (a - b) / (a + b); 0 where the sum is 0.

    It is clipped to [-1, 1], its range for reflectances.
    """
    total = first + second
    return np.clip(np.divide(first - second, total, out=np.zeros_like(total), where=total != 0), -1, 1)


def _gray(tile: Bands) -> np.ndarray:
    """Return the mean of red, green and blue."""
    return (tile["red"] + tile["green"] + tile["blue"]) / 3


def _canny(tile: Bands) -> np.ndarray:
    """Return the Canny edges of gray: 1 on an edge, else 0."""
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
"""Functions from a tile's bands, float64 (H, W) by name, to a derived band (H, W).

They are the bands 15 to 26 of Table V for Landslide4Sense, where B2, B3, B4, B8, B11, B12 are blue, green, red, nir,
swir1, swir2. Tiles of Mars have no infrared, so only the bands of the colours exist there. gray_rgb is the table's
gray; it differs from the band gray of Mars tiles, which is another image.

Choices where the table is not specific: minimum and maximum are those of the tile. A kernel of 10 x 10 has no centre
pixel, so filtering would not commute with mirroring; 11 x 11 is used instead, with a standard deviation of 10 / 6
pixels for the Gaussian (three of them on each side). Gradients are central differences, and their components form a
vector. Canny (standard deviation 1 pixel, thresholds 0.1 and 0.2) is applied to gray scaled to [0, 1]; Canny, "A
computational approach to edge detection", IEEE TPAMI 8, 1986.
"""
