"""Expected content of an image file, by which a reader checks and interprets it."""

from __future__ import annotations

from typing import NamedTuple


class Contents(NamedTuple):
    """Number of bands, bit depth and HDF5 dataset name that a release expects in an image file.

    Attributes:
        bands: Number of bands.
        eight_bits: Whether the bands are 8-bit.
        key: Name of the dataset, if the file is HDF5.

    Example:
        >>> Contents(14)
        Contents(bands=14, eight_bits=False, key='img')
    """

    bands: int
    eight_bits: bool = False
    key: str = "img"
