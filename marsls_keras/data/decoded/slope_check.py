"""Check that the slope band is a slope, by its correlation with the gradient of the DEM."""

from __future__ import annotations

import numpy as np

from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.index.tile_ref import Problem
from marsls_keras.data.normalization import moments_of_valid
from marsls_keras.datasets import RELEASES

FOLLOWS = 0.7
"""Least correlation with the gradient of a slope band: 0.96 in MMLS; gray, colours and thermal stay below 0.5."""

STRAYS = 0.35
"""Correlation below which a band is certainly no slope."""


def slope_correlations(tiles: Tiles) -> dict[str, float]:
    """Return the Pearson correlation of each band with the gradient of the DEM in degrees.

    All pixels count that have data in every band. The gradient is computed by central differences within each tile. A
    constant band has correlation 0. The result is empty if the tiles lack slope or dem.

    Example:
        >>> slope_correlations(tiles)["slope"]  # doctest: +SKIP
        0.96
    """
    bands, release = RELEASES[tiles.release].bands, RELEASES[tiles.release]
    if not {"slope", "dem"} <= set(bands) or min(tiles.images.shape[1:3]) < 2:
        return {}
    dem = bands.index("dem")

    def compared(part: np.ndarray) -> np.ndarray:
        """Return the bands and, last, the gradient of the DEM in degrees: float64 (n, H, W, bands + 1)."""
        heights = part[..., dem].astype(np.float64) * release.relief
        rise = np.hypot(*np.gradient(heights, release.pixel, axis=(1, 2)))
        return np.concatenate([part[..., : len(bands)], np.degrees(np.arctan(rise))[..., None]], -1)

    mean, std = moments_of_valid(tiles.images, tiles.valid, compared)
    scale = np.where(std > 0, std, 1)

    def products(part: np.ndarray) -> np.ndarray:
        scores = (compared(part) - mean) / scale
        return scores[..., :-1] * scores[..., -1:]

    found, _ = moments_of_valid(tiles.images, tiles.valid, products)
    return {band: round(float(found[i]), 4) for i, band in enumerate(bands) if band != "dem"}


def slope_problems(correlations: dict[str, float]) -> list[Problem]:
    """Return a warning if the slope band does not follow the gradient of the DEM; it names a band that does.

    Example:
        >>> slope_problems({"slope": 0.96, "thermal": 0.22})
        []
    """
    others = {band: r for band, r in correlations.items() if band != "slope"}
    if not others:
        return []
    best = max(others, key=lambda band: others[band])
    slope = correlations["slope"]
    if slope >= FOLLOWS:
        return []
    if abs(slope) < STRAYS and others[best] < FOLLOWS:  # no band follows the gradient, as in artificial data
        return []
    if slope >= STRAYS or others[best] < FOLLOWS:
        what = f"slope does not follow the gradient of dem (r = {slope:.2f}, next is {best} with {others[best]:.2f})"
        return [
            Problem("exchanged bands", f"{what}. Are the bands of all tiles in the order of their release?", "warning")
        ]
    correlates = f"the gradient of dem correlates with {best} (r = {others[best]:.2f}), with slope r = {slope:.2f}"
    what = f"slope and {best} look exchanged: {correlates}"
    return [Problem("exchanged bands", f"{what}. Is the release right? It can be named with --release", "warning")]
