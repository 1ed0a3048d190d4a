"""Verify a submission zip against CodaBench's rules, safely also for hostile archives."""

from __future__ import annotations

import copy
import io
import stat
import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile

from marsls_keras.data.formats.tiff import PLAIN
from marsls_keras.data.formats.tiff_chunks import LOSSLESS, require_apart, require_chunks
from marsls_keras.data.formats.tiff_meaning import foreign, no_data, scaling
from marsls_keras.data.formats.tiff_structure import Page, walk

_JUNK = (".DS_Store", "Thumbs.db", "desktop.ini")
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
"""Exceptions that zipfile raises on damaged or hostile archives."""

MAX_ZIP, _MAX_DIRECTORY = 1 << 30, 1 << 23
"""Largest zip and largest central directory that are read, in bytes; a hundred thousand masks take less."""


class _Reader(io.BufferedReader):
    """File that refuses reads of more than `most` bytes.

    zipfile trusts the size that an archive declares for its directory.
    """

    most: int | None = _MAX_DIRECTORY

    def read(self, size: int | None = -1) -> bytes:
        if self.most is not None and size is not None and size > self.most:
            raise zipfile.BadZipFile(f"a directory of {size} bytes, {self.most} at most")
        return super().read(size)


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip for reading, unless its central directory is too large.

    Raises:
        zipfile.BadZipFile: If it is too large or no zip; zipfile raises other errors, too (`_DAMAGE`).

    Example:
        >>> with zipfile.ZipFile("default.zip", "w") as archive:
        ...     archive.writestr("x.tif", b"")
        >>> with open_zip(Path("default.zip")) as archive:
        ...     archive.namelist()
        ['x.tif']
    """
    with _Reader(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        file.most = None
        yield archive


def verify_zip(path: str | Path, expected: Mapping[str, tuple[int, int]]) -> list[str]:
    """Return all problems of a submission zip; an empty list if it is good.

    Safe for hostile archives: nothing is extracted to disk, sizes are checked before reading, and the bytes that are
    unpacked are limited.

    Args:
        path: The zip.
        expected: File name -> (height, width) of every mask it has to hold.

    Example:
        >>> verify_zip("missing.zip", {"x.tif": (128, 128)})
        ['there is no such file']
    """
    path = Path(path)
    if path.exists() and not path.is_dir() and not path.is_file():
        return ["a device or a pipe, expected a zip file"]
    if path.is_file() and (size := path.stat().st_size) > MAX_ZIP:
        return [f"{size} bytes, {MAX_ZIP} at most: it was not read"]
    try:
        with open_zip(path) as archive:
            return _verify(archive, expected)
    except _DAMAGE as error:
        return [_why_not_a_zip(path, error)]


def entry_names(path: str | Path) -> list[str]:
    """Return the names of the entries of a zip; an empty list if it cannot be opened (`verify_zip` says why).

    Example:
        >>> entry_names("missing.zip")
        []
    """
    try:
        with open_zip(Path(path)) as archive:
            return archive.namelist()
    except _DAMAGE:
        return []


def read_entry(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, shape: tuple[int, int]
) -> tuple[np.ndarray | None, list[str]]:
    """Read and verify one mask of a zip.

    Args:
        archive: The opened zip.
        info: The entry.
        shape: Expected height and width.

    Returns:
        The mask, uint8 (H, W) of {0, 1}, and no problem; or None and what is wrong with the entry.

    Example:
        >>> with zipfile.ZipFile("default.zip", "w") as archive:
        ...     archive.writestr("x.tif", b"")
        >>> with open_zip(Path("default.zip")) as archive:
        ...     mask, problems = read_entry(archive, archive.getinfo("x.tif"), (128, 128))
        >>> mask is None, problems
        (True, ['not readable as a TIFF (...)'])
    """
    # Large enough for common mistakes (seven bands of float64), so that they get their own message; larger entries are
    # not read.
    bound = 64 * shape[0] * shape[1] + 65536
    huge = f"a mask of {shape[0]} x {shape[1]} takes about {shape[0] * shape[1]}; it may be a zip bomb and was not read"
    if info.flag_bits & 0x1:
        return None, ["encrypted: zip the masks without a password"]
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return None, [f"compressed with zip method {info.compress_type}, expected stored or deflated"]
    if info.file_size > bound:
        return None, [f"unpacks to {info.file_size} bytes, {huge}"]
    # zipfile stops at the declared size. With a larger one it reads to the real end, so that a false size is found.
    asked = copy.copy(info)
    asked.file_size = bound + 1
    try:
        with archive.open(asked) as entry:
            data = entry.read(bound)
    except _DAMAGE as error:
        return None, [f"damaged in the zip ({printable(str(error))}): write or copy it again"]
    if len(data) == bound:
        return None, [f"unpacks to more than the {info.file_size} bytes it declares, {huge}"]
    if len(data) != info.file_size:
        return None, [
            f"damaged in the zip (declares {info.file_size} bytes, holds {len(data)}): write or copy it again"
        ]
    return _decode(data, shape)


def value_problem(mask: np.ndarray) -> str | None:
    """Return the problem with the values of a mask, or None if all are 0 or 1.

    Example:
        >>> value_problem(np.array([[0, 255]], np.uint8))
        'values 0 and 255: divide by 255'
    """
    values = np.unique(mask)
    if np.isin(values, (0, 1)).all():
        return None
    if np.isin(values, (0, 255)).all():
        return "values 0 and 255: divide by 255"
    shown = f"{', '.join(map(str, values[:4]))}{', …' if len(values) > 4 else ''}"
    return f"values {shown}: expected 0 (background) and 1 (landslide) only"


def grouped(wrong: Mapping[str, list[str]]) -> list[str]:
    """Return one message for each problem, with the first few names that have it.

    Example:
        >>> grouped({"missing": ["a.tif", "b.tif", "c.tif", "d.tif", "e.tif"]})
        ['a.tif, b.tif, c.tif, d.tif and 1 more: missing']
    """
    messages = []
    for problem, names in wrong.items():
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        messages.append(f"{', '.join(map(printable, names[:4]))}{more}: {problem}")
    return messages


def printable(text: str) -> str:
    """Return text from an archive made safe for messages: control characters escaped, 120 characters at most.

    Example:
        >>> len(printable("x" * 200))
        118
    """
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= 120 else f"{text[:117]}…"


def size_text(shape: Iterable[int]) -> str:
    """Format a shape as text, height first.

    Example:
        >>> size_text((128, 256))
        '128 x 256'
    """
    return " x ".join(map(str, shape))


def _verify(archive: zipfile.ZipFile, expected: Mapping[str, tuple[int, int]]) -> list[str]:
    """Return the problems of an opened zip, those of the archive first, then those of the masks."""
    wrong: dict[str, list[str]] = defaultdict(list)
    found: dict[str, zipfile.ZipInfo] = {}
    accounted = set()  # masks that are there but wrong, and so are not reported as missing
    for info in archive.infolist():
        name = info.orig_filename  # filename is cut at a NUL
        parts = name.replace("\\", "/").split("/")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if ".." in parts or not parts[0] or parts[0].endswith(":"):
            wrong["leads outside the folder it is unpacked in (path traversal)"].append(name)
        elif parts[0] == "__MACOSX" or parts[-1] in _JUNK or parts[-1].startswith("._"):
            wrong["left by the file manager: remove it, or make the zip with marsls submit"].append(name)
        elif kind == stat.S_IFLNK:
            wrong["a symbolic link, expected a file"].append(name)
            accounted.add(name)
        elif len(parts) > 1:
            wrong["in a folder: zip the masks themselves, not the folder that holds them"].append(name)
            accounted.add(parts[-1])
        elif kind not in (0, stat.S_IFREG):
            wrong["neither a file nor a folder"].append(name)
            accounted.add(name)
        elif name not in expected:
            wrong["not expected, there is no such test image"].append(name)
        elif name in found:
            wrong["in the zip more than once"].append(name)
        else:
            found[name] = info
    if missing := sorted(set(expected) - set(found) - accounted):
        wrong[f"missing ({len(missing)} of {len(expected)} masks)"] += missing
    for name in sorted(found):
        for problem in read_entry(archive, found[name], expected[name])[1]:
            wrong[problem].append(name)
    return grouped(wrong)


def _decode(data: bytes, shape: tuple[int, int]) -> tuple[np.ndarray | None, list[str]]:
    """Decode a TIFF and return the mask, or None and the problems.

    Pixels are decoded only if the header is valid.
    """
    problems = []
    try:
        structure = walk(io.BytesIO(data))
        with tifffile.TiffFile(io.BytesIO(data), **PLAIN) as tif:
            page, header = tif.pages.first, structure.pages[0]
            if len(structure.pages) != 1:
                problems.append(f"{len(structure.pages)} pages, expected one")
            if page.samplesperpixel != 1:
                problems.append(f"{page.samplesperpixel} bands, expected one")
            if page.dtype != np.uint8:
                problems.append(f"{page.dtype}, expected uint8: save the mask with astype('uint8')")
            found = (page.imagelength, page.imagewidth)
            if found != tuple(shape) or page.imagedepth != 1:
                problems.append(f"size {size_text(found)}, expected {size_text(shape)}")
            if page.compression not in LOSSLESS:
                problems.append(f"TIFF compression {int(page.compression)}, expected none, LZW or Deflate")
            if page.is_tiled and page.tilelength * page.tilewidth > 2**24:
                # Decoding one such tile could exhaust the memory.
                problems.append(f"TIFF tiles of {page.tilelength} x {page.tilewidth} for {size_text(shape)} pixels")
            if reason := foreign(header):
                problems.append(reason)
            if problems:
                return None, problems
            if require_chunks(page, page.dataoffsets, page.databytecounts, decode=True).any():
                return None, ["blocks are absent (sparse), which not every reader knows: write the mask whole"]
            taken = [(start, start + size) for start, size in zip(page.dataoffsets, page.databytecounts, strict=True)]
            require_apart([*structure.headers, *taken], len(data))
            mask = page.asarray()
    except Exception as error:  # tifffile and the codecs raise nearly anything on damaged or hostile bytes
        return None, [f"not readable as a TIFF ({printable(str(error))})"]
    problem = value_problem(mask) or _tag_problem(header)
    return (None, [problem]) if problem else (mask, [])


def _tag_problem(header: Page) -> str | None:
    """Return the problem with GDAL's tags for scale, offset and no data of a mask, or None."""
    try:
        if scaling(header, 1) is not None:
            return "GDAL's metadata tell a scale or offset: write it without"
        empty = no_data(header, np.dtype(np.uint8))
    except ValueError as error:
        return printable(str(error))
    return "landslide (1) is tagged as no data: write it without the no-data tag" if empty == 1 else None


def _why_not_a_zip(path: Path, error: Exception) -> str:
    """Return why a file could not be opened as a zip."""
    if not path.exists():
        return "there is no such file"
    if path.is_dir():
        return "a folder, expected a zip file"
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError as unreadable:
        return f"cannot be read: {unreadable.strerror}"
    if not start:
        return "the file is empty"
    if start == b"PK\x03\x04":
        return (
            f"truncated or damaged zip ({printable(str(error))}): its directory cannot be read. Write or copy it again"
        )
    return "not a zip file"
