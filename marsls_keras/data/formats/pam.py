"""Detect metadata in GDAL's sidecar files (`<name>.aux.xml`).

They are not applied, so the caller is told about them: otherwise no-data values, scales or georeferencing would be
lost silently.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

_LARGEST = 1 << 20
_NO_DATA = re.compile(rb"<NoDataValue[^>]*>\s*([^<]*?)\s*</NoDataValue>")
_SCALING = re.compile(rb"<(Scale|Offset)>\s*([^<]*?)\s*</")
_GEOREFERENCE = (b"<SRS", b"<GeoTransform", b"<GCPList")
_NOTHING = {b"Scale": 1.0, b"Offset": 0.0}


def sidecar(path: Path) -> Path:
    """Return the path of GDAL's sidecar file (persistent auxiliary metadata) of an image.

    Example:
        >>> sidecar(Path("a/tile.tif")).name
        'tile.tif.aux.xml'
    """
    return path.with_name(f"{path.name}.aux.xml")


def _text(path: Path) -> bytes:
    """Return up to `_LARGEST` bytes of an image's sidecar file; empty if it cannot be read."""
    try:
        with open(sidecar(path), "rb") as file:
            return file.read(_LARGEST)
    except OSError:
        return b""


def unread_values(path: Path, empty: np.generic | None) -> str | None:
    """Return a message about a no-data value, scale or offset that only the sidecar file holds; None if there is none.

    Args:
        path: The image.
        empty: The no-data value of the image's own tag; None without a tag.

    Example:
        >>> unread_values(Path("nowhere/tile.tif"), None) is None
        True
    """
    text = _text(path)
    for found in _NO_DATA.findall(text):
        if empty is None or not _equal(found, float(empty)):
            value = found.decode("ascii", "replace")[:40]
            return (
                f"{sidecar(path)} says that {value} is no data; "
                f"write it into the TIFF (gdal_translate -a_nodata {value})"
            )
    for kind, found in _SCALING.findall(text):
        if not _equal(found, _NOTHING[kind]):
            what = "a scale" if kind == b"Scale" else "an offset"
            return (
                f"{sidecar(path)} says that the values have {what}; "
                "write the values themselves (gdal_translate -unscale)"
            )
    return None


def unread_place(path: Path) -> Path | None:
    """Return the path of an image's sidecar file if that holds georeferencing, else None.

    Example:
        >>> unread_place(Path("nowhere/tile.tif")) is None
        True
    """
    text = _text(path)
    return sidecar(path) if any(word in text for word in _GEOREFERENCE) else None


def _equal(text: bytes, value: float) -> bool:
    """Return whether a text is this number, where NaN equals NaN."""
    try:
        number = float(text)
    except ValueError:
        return False
    return number == value or (np.isnan(number) and np.isnan(value))
