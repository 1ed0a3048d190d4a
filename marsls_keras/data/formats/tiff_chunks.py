"""Check that all strips and tiles of a TIFF page are present and as large as the header says."""

from __future__ import annotations

import math
import struct
from itertools import pairwise
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 50000)
"""Codes of lossless compressions: none, LZW, Deflate, PackBits, old Deflate, LZMA, ZSTD."""

JPEG = 7
MAX_CHUNKS = 1 << 16
"""Largest number of strips and tiles of a file, so that reading takes seconds at most."""


def require_written(path: str | Path) -> None:
    """Check that a TIFF that rasterio has written is on the disk as a whole.

    What GDAL cannot write while it closes a file, since the disk is full, rasterio 1.4 does not report.

    Raises:
        OSError: If a strip or tile of any page is missing or lies beyond the end of the file.

    Example:
        >>> tifffile.imwrite("a.tif", np.zeros((32, 32), np.uint8))
        >>> require_written("a.tif")
        >>> _ = Path("cut.tif").write_bytes(Path("a.tif").read_bytes()[:-1])
        >>> require_written("cut.tif")
        Traceback (most recent call last):
            ...
        OSError: not all of it could be written; is the disk full?
    """
    size = Path(path).stat().st_size
    try:
        with tifffile.TiffFile(path) as tif:
            places = [
                (offset, count)
                for page in tif.pages
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
            ]
    except (tifffile.TiffFileError, ValueError, IndexError, struct.error):  # its directory was not written
        places = []
    if not places or any(not count or offset + count > size for offset, count in places):
        raise OSError("not all of it could be written; is the disk full?")


def chunk_bytes(page: tifffile.TiffPage) -> tuple[int, int]:
    """Return the bytes per row of a strip or tile, and the number of rows of a full one.

    Example:
        >>> with tifffile.TiffFile("tile.tif") as tif:  # doctest: +SKIP
        ...     chunk_bytes(tif.pages[0])
        (3584, 128)
    """
    width, rows = (
        (page.tilewidth, page.tilelength)
        if page.is_tiled
        else (page.imagewidth, min(page.rowsperstrip, page.imagelength))
    )
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    return -(-width * samples * page.bitspersample // 8), rows


def require_chunks(
    page: tifffile.TiffPage, offsets: tuple[int, ...], counts: tuple[int, ...], decode: bool, fill: np.generic | int = 0
) -> np.ndarray:
    """Check the size of strips or tiles, and return which of them are absent, bool (number,).

    GDAL leaves blocks that were never written absent, with offset and size 0. When it closes a file it may fill others
    with one value; those are full strips, even where the last one extends beyond the image. Other bytes beyond the
    header's rows are pixels, which is an error.

    Args:
        page: The page, or the first of several pages of equal layout.
        offsets: Where the strips or tiles of the page begin in the file.
        counts: Their sizes in bytes.
        decode: Whether to decompress the last tile, or the last strip of each plane, to learn its size (of JPEG, all of
            them): an edited height or width shows there. tifffile refuses those that are too short and cuts those that
            are too long.
        fill: GDAL's fill value. A compressed strip that extends beyond the image and holds nothing else counts as
            absent, since not every codec can cut it.
            codec can cut it.

    Raises:
        ValueError: If strips or tiles are missing, or hold fewer or more pixels than the header says.

    Example:
        >>> with tifffile.TiffFile("tile.tif") as tif:  # doctest: +SKIP
        ...     page = tif.pages[0]
        ...     require_chunks(page, page.dataoffsets, page.databytecounts, decode=True)
        array([False])
    """
    number = math.prod(page.chunked)
    if not number == len(offsets) == len(counts):
        raise ValueError("strips or tiles are absent")
    declared = page.tags.get(324) or page.tags.get(273)  # tifffile cuts a list that is too long
    if declared is None or declared.count != number:
        raise ValueError(f"{0 if declared is None else declared.count} strips or tiles instead of {number}")
    absent = np.array([offset == 0 and count == 0 for offset, count in zip(offsets, counts, strict=True)])
    if not all(count for count, gone in zip(counts, absent, strict=True) if not gone):
        raise ValueError("strips or tiles are absent")
    width, rows = chunk_bytes(page)
    column = -(-page.imagelength // rows)  # number of strips from top to bottom
    for i, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
        if absent[i]:
            continue
        whole = width * rows
        needed = whole if page.is_tiled else width * min(rows, page.imagelength - i % column * rows)
        last = i + 1 == number if page.is_tiled else (i + 1) % column == 0
        if count == needed if page.compression == 1 else not (decode and (last or page.compression == JPEG)):
            continue
        data = _decoded(page, offset, count, whole)
        if (
            data is not None
            and len(data) != needed
            and not (len(data) == whole and column > 1 and _blank(data, needed, width))
        ):
            raise ValueError(f"{len(data)} bytes of pixels instead of {needed} in strip or tile {i}")
        absent[i] = data is not None and page.compression != 1 and len(data) != needed and _filled(page, data, fill)
    return absent


def _decoded(page: tifffile.TiffPage, offset: int, count: int, whole: int) -> bytes | None:
    """Return the decompressed bytes of a strip, at most one more than a full strip has; None for JPEG."""
    file = page.parent.filehandle
    file.seek(offset)
    data = file.read(min(count, whole + 1) if page.compression == 1 else count)
    if page.compression == 1:
        return bytes(data)
    if page.compression == JPEG:
        height, width = _jpeg_size(data)
        most = (chunk_bytes(page)[1], page.tilewidth if page.is_tiled else page.imagewidth)
        # A JPEG holds whole blocks of up to 16 pixels, and the decoder takes memory for all of them.
        if height > most[0] + 16 or width > most[1] + 16:
            raise ValueError(f"a JPEG of {height} x {width} pixels in a strip or tile of {most[0]} x {most[1]}")
        return None
    if page.fillorder == 2:
        data = bytes(imagecodecs.bitorder_decode(data))
    return bytes(tifffile.TIFF.DECOMPRESSORS[page.compression](data, out=whole + 1))


def _blank(data: bytes, needed: int, width: int) -> bool:
    """Return whether the rows beyond the image hold no pixels: zeros, or one row repeated, as GDAL fills them."""
    rows = np.frombuffer(data, np.uint8).reshape(-1, width)
    return not any(data[needed:]) or bool((rows == rows[0]).all())


def _filled(page: tifffile.TiffPage, data: bytes, fill: np.generic | int) -> bool:
    """Return whether all values of a decompressed strip equal the fill value."""
    if page.dtype is None or page.bitspersample % 8:
        return not any(data) and fill == 0
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    values = np.frombuffer(data, page.dtype.newbyteorder(page.parent.byteorder)).reshape(-1, page.imagewidth, samples)
    if page.predictor != 1:
        values = tifffile.TIFF.UNPREDICTORS[page.predictor](values, axis=-2)
    return bool((np.isnan(values) if np.isnan(fill) else values == fill).all())


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Return height and width from the frame header of a JPEG."""
    at = 2
    while data[at : at + 1] == b"\xff":
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    raise ValueError("a JPEG without a frame header")


def require_apart(taken: list[tuple[int, int]], size: int) -> None:
    """Raise an error if byte ranges (start, end) of a file overlap or extend beyond its size.

    Raises:
        ValueError: If they do.

    Example:
        >>> require_apart([(0, 8), (4, 12)], 100)
        Traceback (most recent call last):
            ...
        ValueError: parts of the file overlap
    """
    taken = sorted(taken)
    if max(end for _, end in taken) > size:
        raise ValueError("cut off")
    if any(start < end for (_, end), (start, _) in pairwise(taken)):
        raise ValueError("parts of the file overlap")


def largest_gap(taken: list[tuple[int, int]], size: int) -> int:
    """Return the length of the longest byte range of a file outside the given ranges (start, end), which may overlap.

    Example:
        >>> largest_gap([(0, 8), (20, 30)], 30)
        12
    """
    gap, reached = 0, 0
    for start, end in sorted(taken):
        gap, reached = max(gap, start - reached), max(reached, end)
    return max(gap, size - reached)
