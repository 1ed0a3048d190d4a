"""The derived bands: their source bands, and how they change when a tile is rotated."""

from __future__ import annotations

from dataclasses import dataclass

TPI_RADII = {"tpi_small": 4, "tpi_large": 16}
"""Radii of the topographic position in pixels: 0.9 and 3.7 km on the tiles of Mars."""

RELIEF_REACH = 8
"""Pixels on each side of a pixel that `local_relief` uses."""


@dataclass(frozen=True)
class Derived:
    """Source bands and neighbourhood of a derived band.

    Attributes:
        sources: The bands it is computed from, which tiles must hold.
        reach: Number of pixels beyond a tile's border that are used; they are read from the neighbours. None for bands
            that are computed from the tile alone, as in RMAU-Net.

    Example:
        >>> DERIVED["ndvi"].sources, DERIVED["roughness"].reach
        (('nir', 'red'), 1)
    """

    sources: tuple[str, ...]
    reach: int | None = None


_RGB, _DEM = ("red", "green", "blue"), ("dem",)

DERIVED: dict[str, Derived] = {
    **{f"min_max_{colour}": Derived((colour,)) for colour in _RGB},
    "ndvi": Derived(("nir", "red")),
    "ndmi": Derived(("nir", "swir1")),
    "nbr": Derived(("nir", "swir2")),
    **{
        name: Derived(_RGB)
        for name in ("gray_rgb", "gaussian_gray", "median_gray", "gradient_rows", "gradient_columns", "canny")
    },
    **{
        name: Derived(_DEM, 1)
        for name in ("aspect_sin", "aspect_cos", "profile_curvature", "plan_curvature", "roughness")
    },
    **{name: Derived(_DEM, radius) for name, radius in TPI_RADII.items()},
    "local_relief": Derived(_DEM, RELIEF_REACH),
    **{name: Derived(_DEM, 1) for name in ("normal_rows", "normal_columns", "normal_up", "hillshade")},
}
"""The derived bands by name; `marsls_keras.data.derived.colours` and `.terrain` describe them."""

VECTORS: tuple[tuple[str, str, int], ...] = (
    ("aspect_cos", "aspect_sin", -1),
    ("gradient_rows", "gradient_columns", 1),
    ("normal_rows", "normal_columns", 1),
)
"""Pairs of bands that are components of a vector, which turns with the tile.

Each is (band down the rows, band along the columns to the right, sign of the first). Aspect is an azimuth, so its
cosine points upwards, to the north."""

LATE: dict[str, dict[str, float]] = {"hillshade": {"normal_rows": -0.5, "normal_columns": -0.5, "normal_up": 0.5**0.5}}
"""Bands that are computed after augmentation, as the positive part of a weighted sum of other bands.

They depend on a direction that does not turn with the tile. Hillshade is the cosine of the angle between the surface's
normal and the light, which comes from the north-west (azimuth 315°), 45° above the horizon, the usual direction in
cartography."""
