"""What a reader has to know of a release to read its files."""

from __future__ import annotations

from typing import NamedTuple


class Contents(NamedTuple):
    """What an image file may hold.

    Attributes:
        bands: Number of bands.
        eight_bits: Whether it is a picture of 8 bits a band.
        key: Name of the dataset, where the container is HDF5.

    Example:
        >>> Contents(14)
        Contents(bands=14, eight_bits=False, key='img')
    """

    bands: int
    eight_bits: bool = False
    key: str = "img"
