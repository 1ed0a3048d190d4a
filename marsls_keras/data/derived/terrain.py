"""Derived bands of the terrain: aspect, curvature, surface normal, topographic position, roughness and relief."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from marsls_keras.bands.derived import RELIEF_REACH, TPI_RADII

_FLAT = 1e-6
"""Gradient in metres per metre below which ground is flat, without aspect: a thousandth of a millimetre per metre."""


class Surface:
    """Partial quartic surface fitted to the 3 x 3 pixels around each pixel, and its derivatives.

    z = D x² + E y² + F x y + G x + H y + …, x to the east (right) and y to the north (up), as in Zevenbergen & Thorne,
    "Quantitative analysis of land surface topography", Earth Surface Processes and Landforms 12, 1987, equations 4 to
    9; at the borders of the array the last pixel is repeated.

    Args:
        heights: float64 (H, W), metres.
        pixel: Side of a pixel in metres.

    Attributes:
        east: G, float64 (H, W).
        north: H, likewise.

    Example:
        >>> east, north, up = Surface(np.zeros((4, 4)), pixel=10.0).normal()
        >>> float(up.min())
        1.0
    """

    def __init__(self, heights: np.ndarray, pixel: float) -> None:
        z = np.pad(heights, 1, mode="edge")
        (z1, z2, z3), (z4, z5, z6), (z7, z8, z9) = (
            [z[i : i + heights.shape[0], j : j + heights.shape[1]] for j in range(3)] for i in range(3)
        )
        self.east, self.north = (z6 - z4) / (2 * pixel), (z2 - z8) / (2 * pixel)
        self._d, self._e = ((z4 + z6) / 2 - z5) / pixel**2, ((z2 + z8) / 2 - z5) / pixel**2
        self._f = (z3 + z7 - z1 - z9) / (4 * pixel**2)
        self._steepness = np.hypot(self.east, self.north)

    def downhill(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the east and north components of the downhill unit vector; 0 where it is flat."""
        steep = self._steepness > _FLAT
        size = np.where(steep, self._steepness, 1.0)
        return np.where(steep, -self.east / size, 0.0), np.where(steep, -self.north / size, 0.0)

    def curvatures(self) -> tuple[np.ndarray, np.ndarray]:
        """Return profile and plan curvature in 1 / m; 0 where it is flat.

        Profile curvature, -2 (D G² + E H² + F G H) / (G² + H²), is that along the slope, positive where it becomes
        steeper downhill; plan curvature, 2 (D H² + E G² - F G H) / (G² + H²), that across it, positive in hollows
        (Zevenbergen & Thorne, equations 15 and 16).
        """
        g, h = self.downhill()
        return -2 * (self._d * g**2 + self._e * h**2 + self._f * g * h), 2 * (
            self._d * h**2 + self._e * g**2 - self._f * g * h
        )

    def normal(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the east, north and up components of the unit normal."""
        size = np.sqrt(1 + self.east**2 + self.north**2)
        return -self.east / size, -self.north / size, 1 / size


def topographic_position(heights: np.ndarray, radius: int) -> np.ndarray:
    """Return the topographic position index: height minus the mean of the other pixels within a radius.

    Weiss, "Topographic position and landforms analysis", 2001.

    Args:
        heights: float64 (H, W), metres.
        radius: Radius of the disc in pixels.

    Example:
        >>> float(np.abs(topographic_position(np.ones((40, 40)), 4)).max())
        0.0
    """
    offset = np.arange(-radius, radius + 1)
    disc = (offset[:, None] ** 2 + offset**2 <= radius**2).astype(float)
    disc[radius, radius] = 0
    # Centred on 0, where the Fourier transform loses the fewest digits.
    padded = np.pad(heights - heights.mean(), radius, mode="edge")
    from scipy.signal import fftconvolve  # takes a while, and few ask for this band

    return heights - heights.mean() - fftconvolve(padded, disc / disc.sum(), mode="valid")


def _spread(heights: np.ndarray, reach: int) -> np.ndarray:
    """Return the range of heights in a square window of 2 `reach` + 1 pixels a side."""
    size = 2 * reach + 1
    return ndimage.maximum_filter(heights, size, mode="nearest") - ndimage.minimum_filter(heights, size, mode="nearest")


def _aspect(heights: np.ndarray, pixel: float) -> dict[str, np.ndarray]:
    """Return sine and cosine of the aspect, which are the components of the downhill unit vector."""
    return dict(zip(("aspect_sin", "aspect_cos"), Surface(heights, pixel).downhill(), strict=True))


def _curvature(heights: np.ndarray, pixel: float) -> dict[str, np.ndarray]:
    return dict(zip(("profile_curvature", "plan_curvature"), Surface(heights, pixel).curvatures(), strict=True))


def _normal(heights: np.ndarray, pixel: float) -> dict[str, np.ndarray]:
    east, north, up = Surface(heights, pixel).normal()
    return {"normal_rows": -north, "normal_columns": east, "normal_up": up}


_TERRAIN: dict[tuple[str, ...], Callable[[np.ndarray, float], dict[str, np.ndarray]]] = {
    ("aspect_sin", "aspect_cos"): _aspect,
    ("profile_curvature", "plan_curvature"): _curvature,
    ("normal_rows", "normal_columns", "normal_up"): _normal,
    ("tpi_small",): lambda z, _: {"tpi_small": topographic_position(z, TPI_RADII["tpi_small"])},
    ("tpi_large",): lambda z, _: {"tpi_large": topographic_position(z, TPI_RADII["tpi_large"])},
    ("roughness",): lambda z, _: {"roughness": _spread(z, 1)},
    ("local_relief",): lambda z, _: {"local_relief": _spread(z, RELIEF_REACH)},
}


def terrain_bands(heights: np.ndarray, pixel: float, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Compute derived bands of a terrain.

    aspect_sin, aspect_cos: sine and cosine of the slope's azimuth, clockwise from north; both 0 where it is flat.
    profile_curvature, plan_curvature: in 1 / m, see `Surface.curvatures`. tpi_small, tpi_large: topographic position in
    metres, within 4 and 16 pixels, see `topographic_position`. roughness: range of heights in 3 x 3 pixels, in metres.
    local_relief: the same in 17 x 17 pixels. normal_rows, normal_columns, normal_up: components of the unit normal to
    the south (down the rows), to the east (along the columns) and up.

    Args:
        heights: float64 (H, W), metres.
        pixel: Side of a pixel in metres.
        names: Names of the bands to return.

    Returns:
        The bands, float64 (H, W), by name.

    Example:
        >>> steps = np.arange(5.0) * np.ones((5, 1))  # rises to the east by 1 m a pixel
        >>> terrain_bands(steps, 10.0, ["roughness"])["roughness"][2, 2]
        np.float64(2.0)
    """
    found: dict[str, np.ndarray] = {}
    for group, compute in _TERRAIN.items():
        if set(group) & set(names):
            found |= compute(heights, pixel)
    return {name: found[name] for name in names}
