"""Parse the page structure of a TIFF file with bounds on its size, before tifffile follows its pointers."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

MAX_PAGES = 2048
"""Largest number of pages of a file, sub-pages included; mmls_v1 has one page for each image row."""

_MAX_TAGS = 512
_MAX_VALUES = 1 << 24  # bytes of the values of all tags together
# Bytes per value of each TIFF data type.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # `struct` formats of TIFF's integer types
_BELOW, _CAMERA = 330, (34665, 34853, 40965)  # SubIFDs; Exif, GPS and interoperability directories


@dataclass(frozen=True)
class Page:
    r"""Header of a TIFF page (image file directory).

    Attributes:
        offset: First byte of the header in the file.
        end: Byte after its last one.
        tags: By tag code: data type, number of values, and the values' bytes.
        order: Byte order, as `struct` writes it.

    Example:
        >>> Page(8, 20, {256: (3, 1, b"\x80\x00")}, "<").number(256, 0)
        128
    """

    offset: int
    end: int
    tags: dict[int, tuple[int, int, bytes]]
    order: str

    def numbers(self, code: int) -> tuple[int, ...]:
        """Return the integers of a tag; empty if the tag is absent or of another type."""
        kind, count, data = self.tags.get(code, (0, 0, b""))
        return struct.unpack(f"{self.order}{count}{_WHOLE[kind]}", data) if kind in _WHOLE else ()

    def number(self, code: int, default: int) -> int:
        """Return the first integer of a tag, or the default if there is none."""
        return next(iter(self.numbers(code)), default)

    def text(self, code: int) -> str | None:
        """Return the text of a tag up to its first NUL byte; None if the tag is absent."""
        return self.tags[code][2].split(b"\0")[0].decode("utf-8", "replace") if code in self.tags else None


@dataclass(frozen=True)
class Structure:
    """Pages of a TIFF file and the byte ranges of its headers and tag values.

    Attributes:
        pages: The main chain of pages.
        headers: (start, end) of the file header and of all page headers.
        values: (start, end) of tag values stored outside the page headers.
        size: Size of the file in bytes.

    Example:
        >>> with open("tile.tif", "rb") as file:  # doctest: +SKIP
        ...     len(walk(file).pages)
        1
    """

    pages: tuple[Page, ...]
    headers: tuple[tuple[int, int], ...]
    values: tuple[tuple[int, int], ...]
    size: int


def walk(file: BinaryIO) -> Structure:
    """Return the structure of a classic TIFF or BigTIFF; sub-pages are checked as well.

    Raises:
        ValueError: If the file is no TIFF, the chain of pages is broken or cyclic, a value lies outside the file, or a
            limit is exceeded.

    Example:
        >>> with open("train_partition/images/Image_patch_7_1.tif", "rb") as file:  # one page a row  # doctest: +SKIP
        ...     len(walk(file).pages)
        128
    """
    return _Walk(file).structure()


class _Walk:
    """Parser of one TIFF file; it counts pages and tag bytes against the limits."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = file.seek(0, os.SEEK_END)
        start = self._read(0, 4)
        self.order = {b"II": "<", b"MM": ">"}.get(start[:2], "")
        version = struct.unpack(f"{self.order}H", start[2:])[0] if self.order else 0
        if version not in (42, 43):
            raise ValueError("it does not begin like a TIFF")
        big = version == 43
        self.start, self.first = (16, 8) if big else (8, 4)
        # `struct` formats of an offset and of the number of tags, and the bytes that a value may have inside its tag.
        self.pointer, self.number, self.short = ("Q", "Q", 8) if big else ("I", "H", 4)
        self.seen: set[int] = set()
        self.headers: list[tuple[int, int]] = [(0, self.start)]
        self.values: list[tuple[int, int]] = []
        self.taken = 0

    def structure(self) -> Structure:
        """Parse the main chain of pages and all sub-pages."""
        chain, children = self._chain(self._unpack(self.first, self.pointer))
        while children:
            children += self._chain(*children.pop())[1]
        return Structure(tuple(chain), tuple(self.headers), tuple(self.values), self.size)

    def _chain(self, offset: int, follow: bool = True) -> tuple[list[Page], list[tuple[int, bool]]]:
        """Return the chain of pages from an offset on, and its sub-pages as (offset, whether a chain follows)."""
        pages: list[Page] = []
        children: list[tuple[int, bool]] = []
        while offset:
            if offset in self.seen:
                raise ValueError("its pages refer to one another in a ring")
            if len(self.seen) == MAX_PAGES:
                raise ValueError(f"more than {MAX_PAGES} pages")
            self.seen.add(offset)
            page = self._page(offset)
            pages.append(page)
            children += [
                (child, code == _BELOW) for code in (_BELOW, *_CAMERA) for child in page.numbers(code) if child
            ]
            offset = self._unpack(page.end - struct.calcsize(self.order + self.pointer), self.pointer) if follow else 0
        return pages, children

    def _page(self, offset: int) -> Page:
        """Parse the page header at an offset, with the values of its tags."""
        number = self._unpack(offset, self.number)
        if not 0 < number <= _MAX_TAGS:
            raise ValueError(f"the chain of pages is broken: {number} tags in one page")
        entry = f"{self.order}HH{self.pointer}"
        at, step = offset + struct.calcsize(self.order + self.number), struct.calcsize(entry) + self.short
        end = at + number * step + struct.calcsize(self.order + self.pointer)
        data = self._read(at, end - at)
        tags: dict[int, tuple[int, int, bytes]] = {}
        for i in range(number):
            code, kind, count = struct.unpack_from(entry, data, i * step)
            inline = data[(i + 1) * step - self.short : (i + 1) * step]
            size = _SIZES.get(kind, 0) * count
            if not _SIZES.get(kind):
                raise ValueError(f"tag {code} is of no known type ({kind})")
            self.taken += size
            if self.taken > _MAX_VALUES:
                raise ValueError(f"tags of more than {_MAX_VALUES >> 20} MiB")
            if size > self.short:
                (place,) = struct.unpack(self.order + self.pointer, inline)
                self.values.append((place, place + size))
                inline = self._read(place, size)
            tags.setdefault(code, (kind, count, inline[:size]))
        self.headers.append((offset, end))
        return Page(offset, end, tags, self.order)

    def _unpack(self, offset: int, form: str) -> int:
        """Return the integer at an offset, in a `struct` format without byte order."""
        return int(struct.unpack(self.order + form, self._read(offset, struct.calcsize(self.order + form)))[0])

    def _read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes of the file from an offset on.

        Raises:
            ValueError: If the file is shorter.
        """
        if offset + size > self.size:
            raise ValueError("cut off, or a pointer in it leads beyond its end")
        self.file.seek(offset)
        return self.file.read(size)
