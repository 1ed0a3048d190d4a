"""TIFF files that no library writes, such as rings of pages; and images written and read by GDAL."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio

Tags = Sequence[tuple[int, int, int, int]]
"""(code, type, number of values, value or offset), as in a classic little-endian header."""


def gray(size: int, offset: int) -> Tags:
    """Return the tags of a page of size x size bytes that lie at an offset in one strip."""
    values = {256: size, 257: size, 258: 8, 259: 1, 262: 1, 273: offset, 277: 1, 278: size, 279: size * size}
    return [(code, 4, 1, value) for code, value in values.items()]


def page(tags: Tags, following: int) -> bytes:
    """Return a page's header with the offset of the page that follows."""
    return (
        struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        + struct.pack("<I", following)
    )


def page_size(tags: Tags) -> int:
    return 6 + 12 * len(tags)


def start(first: int = 8) -> bytes:
    return b"II*\0" + struct.pack("<I", first)


def ring(number: int, returns_to: int = 1, size: int = 32) -> bytes:
    """Return a mask of size x size with several pages, of which the last points back to an earlier one."""
    length = page_size(gray(size, 0))
    pixels = 8 + number * length
    offsets = [8 + i * length for i in range(number)]
    following = [*offsets[1:], offsets[returns_to]]
    return start() + b"".join(page(gray(size, pixels), after) for after in following) + bytes(size * size)


def empty_ring(number: int, size: int = 32) -> bytes:
    """Return a mask followed by a ring of several pages without tags."""
    head = page_size(gray(size, 0))
    first = 8 + head + size * size
    pages = [struct.pack("<HI", 0, first + 6 * ((i + 1) % number)) for i in range(number)]
    return start() + page(gray(size, 8 + head), first) + bytes(size * size) + b"".join(pages)


def sub_ring(size: int = 32) -> bytes:
    """Return a mask with two pages below it (SubIFDs) that are each other's next one."""
    tags = [*gray(size, 0), (330, 4, 1, 0)]
    below = 8 + page_size(tags)
    plain = page_size(gray(size, 0))
    pixels = below + 2 * plain
    tags = [*gray(size, pixels), (330, 4, 1, below)]
    lower = page(gray(size, pixels), below + plain) + page(gray(size, pixels), below)
    return start() + page(tags, 0) + lower + bytes(size * size)


def own_child(size: int = 32) -> bytes:
    """Return a mask whose page is its own SubIFD."""
    tags = [*gray(size, 8 + page_size(gray(size, 0)) + 12), (330, 4, 1, 8)]
    return start() + page(tags, 0) + bytes(size * size)


def long_chain(number: int, size: int = 4) -> bytes:
    """Return a chain of several pages that ends correctly."""
    length = page_size(gray(size, 0))
    pixels = 8 + number * length
    pages = [page(gray(size, pixels), 8 + (i + 1) * length if i + 1 < number else 0) for i in range(number)]
    return start() + b"".join(pages) + bytes(size * size)


def shared_values(number: int, values: int, size: int = 4) -> bytes:
    """Return pages that all have the same, long, private tag."""
    tags = [*gray(size, 0), (65000, 3, values, 0)]
    length = page_size(tags)
    pixels = 8 + number * length
    there = pixels + size * size
    tags = [*gray(size, pixels), (65000, 3, values, there)]
    pages = [page(tags, 8 + (i + 1) * length if i + 1 < number else 0) for i in range(number)]
    return start() + b"".join(pages) + bytes(size * size + 2 * values)


def write_gdal(
    path: Path, image: np.ndarray, valid: np.ndarray | None = None, internal: bool = True, **options: object
) -> Path:
    """Write an image (H, W, C) by GDAL, perhaps with a mask (H, W) of valid pixels, in the file or beside it."""
    image = image if image.ndim == 3 else image[..., None]
    height, width, bands = image.shape
    scales, offsets = options.pop("scales", None), options.pop("offsets", None)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal),
        rasterio.open(
            path, "w", driver="GTiff", height=height, width=width, count=bands, dtype=image.dtype, **options
        ) as file,
    ):
        file.write(np.ascontiguousarray(np.moveaxis(image, -1, 0)))
        if valid is not None:
            file.write_mask(valid)
        if scales is not None:
            file.scales, file.offsets = scales, offsets
    return path


def read_gdal(path: Path) -> np.ma.MaskedArray:
    """Return the image (H, W, C) that GDAL reads, masked where GDAL reports no data."""
    with rasterio.open(path) as file:
        return np.ma.MaskedArray(np.moveaxis(file.read(), 0, -1), np.moveaxis(file.read_masks(), 0, -1) == 0)
