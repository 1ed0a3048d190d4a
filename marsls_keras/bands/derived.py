"""Which derived bands there are, from what they are computed, and how they behave when a tile is turned."""

from __future__ import annotations

from dataclasses import dataclass

TPI_RADII = {"tpi_small": 4, "tpi_large": 16}
"""Radii of the topographic position in pixels: 0.9 and 3.7 km on the tiles of Mars."""

RELIEF_REACH = 8
"""Pixels on each side that `local_relief` looks at."""


@dataclass(frozen=True)
class Derived:
    """A derived band.

    Attributes:
        sources: The bands it is computed from, which tiles must hold.
        reach: How many pixels beyond a tile's border count; what lies there is read from the neighbours. None for what
            is computed from the tile alone, as RMAU-Net has it.

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
"""The derived bands by name; `marsls_keras.data.derived.colours` and `.terrain` say what they are."""

VECTORS: tuple[tuple[str, str, int], ...] = (
    ("aspect_cos", "aspect_sin", -1),
    ("gradient_rows", "gradient_columns", 1),
    ("normal_rows", "normal_columns", 1),
)
"""Bands that are the two components of a vector, and turn with the tile: along rows (downwards) times a sign, and along columns (to the
right). Aspect is an azimuth, so its cosine points upwards, to the north."""

LATE: dict[str, dict[str, float]] = {"hillshade": {"normal_rows": -0.5, "normal_columns": -0.5, "normal_up": 0.5**0.5}}
"""Bands that are computed when the tile has its final position, since they hang on a direction that does not turn with it: the positive
part of this sum of other bands. Hillshade is the cosine between the surface's normal and the light, which comes from
the north-west (azimuth 315°), 45° above the horizon, as cartographers have it."""
