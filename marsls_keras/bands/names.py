"""Names of the bands of Mars tiles in canonical order, and the selection of bands from those that tiles hold."""

from __future__ import annotations

from collections.abc import Sequence

from marsls_keras.bands.derived import DERIVED
from marsls_keras.errors import InputError
from marsls_keras.suggestions import did_you_mean

BANDS = ("red", "green", "blue", "dem", "slope", "thermal", "gray")
"""Canonical order of the bands of a Mars tile in every array of this package."""

RGB = ("red", "green", "blue")
"""The bands that photometric augmentation may touch; the others are physical quantities."""

ALL = "all"
"""Name that stands for all bands that the tiles hold, in their order."""


def expand_bands(names: Sequence[str], stored: Sequence[str]) -> tuple[str, ...]:
    """Replace `ALL` in a list of bands by the bands that tiles hold, and remove duplicates.

    Args:
        names: Names, as in the configuration's `data.bands`.
        stored: The bands that the tiles hold, perhaps with derived ones, which `ALL` leaves out.

    Raises:
        InputError: If the tiles do not hold a band, or a band that it is derived from.

    Example:
        >>> expand_bands(["dem", "all"], ("red", "dem", "gray"))
        ('dem', 'red', 'gray')
    """
    own = [band for band in stored if band not in DERIVED]
    found = tuple(dict.fromkeys(band for name in names for band in (own if name == ALL else (name,))))
    absent = [band for band in found if band not in own and band not in DERIVED]
    if absent:
        raise InputError(
            f"data.bands: the tiles have no band {', '.join(absent)}.{did_you_mean(absent[0], own)} "
            f"They have {', '.join(own)}."
        )
    for band in found:
        if band in DERIVED and (lacking := [source for source in DERIVED[band].sources if source not in own]):
            raise InputError(
                f"data.bands: {band} is derived from {', '.join(lacking)}, and the tiles have {', '.join(own)}."
            )
    return found
