"""Interpret TIFF tags that change the meaning of pixel values: colour model, orientation, no-data and scale."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from marsls_keras.data.formats.tiff_structure import Page

REDUCED, MASK = 1, 4
"""Bits of NewSubfileType: a reduced copy of another page, and a validity mask of another page."""

_PHOTOMETRIC = {
    0: "stores white as 0 (MINISWHITE), so that a reader may invert it",
    3: "holds indices of a palette, not values",
    4: "is a transparency mask of another page",
    5: "is in CMYK, which is separated inks",
    8: "is in CIE L*a*b*",
}
_JPEG = 7


def foreign(page: Page) -> str | None:
    r"""Describe why a page's values cannot be used as stored (colour model, orientation), and the remedy; else None.

    Example:
        >>> foreign(Page(8, 20, {262: (3, 1, b"\x00\x00")}, "<"))
        'the file stores white as 0 (MINISWHITE), so that a reader may invert it; write the values themselves, with
        MINISBLACK (or RGB)'
    """
    photometric, orientation = page.number(262, 1), page.number(274, 1)
    if photometric not in (1, 2) and not (photometric == 6 and page.number(259, 1) == _JPEG):
        how = _PHOTOMETRIC.get(photometric, f"has PhotometricInterpretation {photometric}")
        return f"the file {how}; write the values themselves, with MINISBLACK (or RGB)"
    if orientation != 1:
        return (
            f"its Orientation is {orientation}, so the rows or columns are turned; "
            "write it upright, from the top left (Orientation 1)"
        )
    return None


def alpha(page: Page) -> str | None:
    """Return a message if a band is transparency (ExtraSamples), else None.

    Example:
        >>> alpha(Page(8, 20, {}, "<")) is None
        True
    """
    if not any(kind in (1, 2) for kind in page.numbers(338)):
        return None
    return "One of its bands is alpha (ExtraSamples); write it without, and mark what is no data by GDAL's no-data tag."


def no_data(page: Page, dtype: np.dtype) -> np.generic | None:
    r"""Return the value of GDAL's no-data tag (42113), converted to the file's data type.

    None without the tag, or if the type cannot represent the value.

    Raises:
        ValueError: If the tag holds no number.

    Example:
        >>> no_data(Page(8, 20, {42113: (2, 6, b"-9999\x00")}, "<"), np.dtype(np.float32))
        np.float32(-9999.0)
    """
    text = page.text(42113)
    if text is None:
        return None
    if "#QNAN" in text or "#IND" in text:  # old notations of NaN on Windows
        text = "nan"
    try:
        if dtype.kind == "f":
            with np.errstate(over="ignore"):  # out of range becomes infinite, and infinite values are no-data anyway
                return np.float64(text).astype(dtype)
        value = float(text)
        if not value.is_integer():  # also excludes NaN and infinity
            return None
        # A float cannot hold every 64-bit integer, so the text is converted where it is one.
        whole = int(text) if text.strip().lstrip("+-").isdecimal() else int(value)
    except ValueError:
        raise ValueError(f"GDAL's no-data tag says {text[:40]!r}, which is no number") from None
    if dtype.kind == "b":
        return np.bool_(whole) if whole in (0, 1) else None
    limits = np.iinfo(dtype)
    return dtype.type(whole) if limits.min <= whole <= limits.max else None


def scaling(page: Page, bands: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return scale and offset of each band from GDAL's metadata (tag 42112), float64 (bands,); None if they do nothing.

    Raises:
        ValueError: If they cannot be read.

    Example:
        >>> scaling(Page(8, 20, {}, "<"), 7) is None
        True
    """
    text = page.text(42112)
    if text is None or "role=" not in text:
        return None
    scale, offset = np.ones(bands), np.zeros(bands)
    try:
        if "<!" in text.replace("<!--", ""):
            raise ValueError("a document type")  # GDAL writes none, and its entities can expand to gigabytes
        for item in ElementTree.fromstring(text).iter("Item"):
            into = {"scale": scale, "offset": offset}.get(item.get("role", ""))
            if into is not None:
                into[int(item.get("sample", "0"))] = float(item.text or "")
    except (ElementTree.ParseError, ValueError, IndexError) as error:
        raise ValueError(
            f"GDAL's metadata (tag 42112) tell scale or offset in a way that cannot be read: {error}"
        ) from None
    if not (np.isfinite(scale).all() and np.isfinite(offset).all()):
        raise ValueError("GDAL's metadata (tag 42112) tell a scale or offset that is no number")
    return None if (scale == 1).all() and (offset == 0).all() else (scale, offset)
