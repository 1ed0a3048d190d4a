"""The zip that CodaBench takes: written to the byte the same from the same masks, and verified before it replaces an earlier one."""

from __future__ import annotations

import copy
import csv
import io
import os
import stat
import struct
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from marsls_keras.data.dataset import image_files
from marsls_keras.data.tiff import read_shape
from marsls_keras.errors import InputError, RunError, listing
from marsls_keras.files import atomic, sha256, write_json

LEDGER_COLUMNS = (
    *("time", "zip", "sha256", "runs", "folds", "views", "threshold", "expected_miou", "low", "high", "images", "tiles"),
    *("phase", "score"),
)
"""Columns of the ledger; phase and score are filled in by hand, once CodaBench has answered."""

_JUNK = (".DS_Store", "Thumbs.db", "desktop.ini")
_LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 50000)  # none, LZW, Deflate, PackBits, old Deflate, LZMA, ZSTD
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)
"""What zipfile raises on a damaged or hostile archive."""


def expected_names(images: str | Path) -> dict[str, tuple[int, int]]:
    """Return file name -> (height, width) of a folder of test images (or of its sub-folder `images`), from the TIFF headers alone.

    Raises:
        InputError: If the folder is missing or empty, names clash, or images cannot be read; all of these are listed.
    """
    sizes, problems = {}, []
    for file in image_files(images):
        try:
            sizes[file.name] = read_shape(file)
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError(f"{len(problems)} of the test images in {images} cannot be used:{listing(problems)}")
    return sizes


def write_submission(
    masks: Iterable[tuple[str, np.ndarray]], path: str | Path, expected: Mapping[str, tuple[int, int]], manifest: dict[str, Any]
) -> Path:
    """Write masks as a flat zip of uncompressed TIFFs, with a manifest `<stem>.json` beside it, and verify it.

    The same masks give the same bytes (with the same zlib). An earlier zip stays as it was until the new one is complete and verified.

    Args:
        masks: (file name, uint8 (H, W) of {0, 1}), in any order; consumed one by one and kept as bits, so a generator may compute them.
        path: Where to write, `….zip`.
        expected: File name -> (height, width) of every test image.
        manifest: What to note beside the zip (runs, decision); zip, sha256, tiles, foreground_ratio and created are added.

    Returns:
        The path of the zip.

    Raises:
        InputError: If the path is no file name ending in .zip, or masks are missing, extra, double or malformed; all are listed.
        RunError: If the zip cannot be written, or does not pass its verification.
    """
    path = Path(path)
    _check_place(path, expected)  # before the masks, which may take an hour to compute
    packed, problems, foreground = _collect(masks, expected)
    if problems:
        raise InputError(f"{path} was not written, the masks are not those that the test images ask for:{listing(problems)}")
    with atomic(path) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name in sorted(packed):
                height, width = expected[name]
                mask = np.unpackbits(packed[name], count=height * width).reshape(height, width)
                info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                info.create_system = 3  # Unix, whatever wrote it: the attributes and so the bytes depend on it
                info.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(info, _encode(mask), zipfile.ZIP_DEFLATED, 9)
        problems = verify_zip(temporary, expected)
        if problems:
            raise RunError(f"{path} was not written: what reached the disk is not what was meant. Check the disk.{listing(problems)}")
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # the manifest takes its place first, so nothing may be left that can make the zip fail
        pixels = sum(height * width for height, width in expected.values())
        added = {
            "zip": path.name,
            "sha256": sha256(temporary),
            "tiles": len(packed),
            "foreground_ratio": foreground / pixels,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(path.with_suffix(".json"), manifest | added)
    return path


def verify_zip(path: str | Path, expected: Mapping[str, tuple[int, int]]) -> list[str]:
    """Return everything that is wrong with a submission; an empty list if it is good.

    Safe on archives from anyone: nothing is extracted, sizes are checked before reading, and no more than a bound is ever unpacked.

    Args:
        path: The zip.
        expected: File name -> (height, width) of every mask it has to hold.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _verify(archive, expected)
    except _DAMAGE as error:
        return [_why_not_a_zip(path, error)]


def entry_names(path: str | Path) -> list[str]:
    """Return the names of the entries of a zip, none if it cannot be opened (`verify_zip` says why)."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except _DAMAGE:
        return []


def read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, shape: tuple[int, int]) -> tuple[np.ndarray | None, list[str]]:
    """Read one mask of a zip.

    Args:
        archive: The opened zip.
        info: The entry.
        shape: Height and width it has to have.

    Returns:
        The mask, uint8 (H, W) of {0, 1}, and no problem; or None and what is wrong with the entry.
    """
    # Room for any honest mistake (seven bands of float64), so that it is named as such; beyond it the entry is not read.
    bound = 64 * shape[0] * shape[1] + 65536
    huge = f"a mask of {shape[0]} x {shape[1]} takes about {shape[0] * shape[1]}; it may be a zip bomb and was not read"
    if info.flag_bits & 0x1:
        return None, ["encrypted: zip the masks without a password"]
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return None, [f"compressed with zip method {info.compress_type}, expected stored or deflated"]
    if info.file_size > bound:
        return None, [f"unpacks to {info.file_size} bytes, {huge}"]
    # zipfile stops at the declared size. Asked for more, it reads on to the real end, so that a false size shows.
    asked = copy.copy(info)
    asked.file_size = bound + 1
    try:
        with archive.open(asked) as entry:
            data = entry.read(bound)
    except _DAMAGE as error:
        return None, [f"damaged in the zip ({_clean(str(error))}): write or copy it again"]
    if len(data) == bound:
        return None, [f"unpacks to more than the {info.file_size} bytes it declares, {huge}"]
    if len(data) != info.file_size:
        return None, [f"damaged in the zip (declares {info.file_size} bytes, holds {len(data)}): write or copy it again"]
    return _decode(data, shape)


def append_ledger(ledger: str | Path, row: Mapping[str, Any]) -> None:
    """Add a line to the ledger of submissions; the lines before stay byte for byte.

    Args:
        ledger: The CSV file, made with its header if it is not there. Columns that someone added are kept and left empty.
        row: Value by column of `LEDGER_COLUMNS`; lists are joined by spaces, what is missing is left empty, the time defaults to now.

    Raises:
        InputError: If the file is there and is no ledger.
        RunError: If it cannot be written.
        ValueError: If `row` has a column that the ledger does not know.
    """
    ledger = Path(ledger)
    if unknown := set(row) - set(LEDGER_COLUMNS):
        raise ValueError(f"The ledger has the columns {', '.join(LEDGER_COLUMNS)}. Received: {', '.join(sorted(unknown))}")
    try:
        old = ledger.read_bytes()
    except FileNotFoundError:
        old = b""
    except OSError as error:
        raise InputError(f"{ledger} cannot be read as a ledger: {error.strerror}.") from None
    header = list(LEDGER_COLUMNS)
    if old:
        header = next(csv.reader([old.splitlines()[0].decode("utf-8-sig", "replace")]), [])
        if missing := [column for column in LEDGER_COLUMNS if column not in header]:
            raise InputError(
                f"{ledger} is not a ledger of submissions: no column {', '.join(missing)}. Move it away; a new one will be made."
            )
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    if not old:
        writer.writeheader()
    now = {"time": datetime.now(UTC).isoformat(timespec="seconds")}
    writer.writerow(now | {key: " ".join(map(str, value)) if isinstance(value, list | tuple) else value for key, value in row.items()})
    with atomic(ledger) as temporary:  # bytes and not text, since a spreadsheet may have left other line ends
        gap = b"" if not old or old.endswith((b"\n", b"\r")) else b"\n"
        temporary.write_bytes(old + gap + text.getvalue().encode())


def _check_place(path: Path, expected: Mapping[str, tuple[int, int]]) -> None:
    """Refuse, before anything is computed, a path or names that no zip can be written with."""
    if path.suffix.lower() != ".zip" or path.is_dir():
        raise InputError(f"{path}: expected the name of a file ending in .zip{', found a folder' if path.is_dir() else ''}.")
    if not expected:
        raise InputError(f"{path} was not written: there is no test image to submit a mask for.")
    if unfit := [
        _clean(name) for name in expected if Path(name).name != name or "\\" in name or not name.lower().endswith((".tif", ".tiff"))
    ]:
        raise InputError(f"{path} was not written: these names are not plain names of TIFF files:{listing(unfit)}")
    # The folder itself is made with the zip, so that a submission that fails leaves nothing behind.
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise RunError(f"{there} is not a folder that can be written to. Choose another place.")


def _collect(
    masks: Iterable[tuple[str, np.ndarray]], expected: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, np.ndarray], list[str], int]:
    """Return the masks as bits by name (uint8 (ceil(H * W / 8),)), what is wrong with them, and the number of foreground pixels."""
    packed: dict[str, np.ndarray] = {}
    wrong: dict[str, list[str]] = defaultdict(list)
    seen = Counter[str]()
    foreground = 0
    for name, mask in masks:
        seen[name] += 1
        if name not in expected:
            wrong["not the name of a test image"].append(name)
        elif seen[name] == 2:
            wrong["given more than once"].append(name)
        elif mask.dtype != np.uint8:
            wrong[f"{mask.dtype}, expected uint8"].append(name)
        elif mask.shape != tuple(expected[name]):
            wrong[f"size {_size(mask.shape)}, expected {_size(expected[name])}"].append(name)
        elif problem := _values(mask):
            wrong[problem].append(name)
        else:
            packed[name] = np.packbits(mask)
            foreground += int(np.count_nonzero(mask))
    if missing := sorted(set(expected) - set(seen)):
        wrong["no mask"] += missing
    return packed, _grouped(wrong), foreground


def _encode(mask: np.ndarray) -> bytes:
    """Return a mask (H, W) as an uncompressed TIFF that holds nothing but the mask: no software, date or description."""
    file = io.BytesIO()
    tifffile.imwrite(file, mask, byteorder="<", photometric="minisblack", rowsperstrip=mask.shape[0], software=False, metadata=None)
    return file.getvalue()


def _verify(archive: zipfile.ZipFile, expected: Mapping[str, tuple[int, int]]) -> list[str]:
    """Return the problems of an opened zip, those of the archive first, then those of the masks."""
    wrong: dict[str, list[str]] = defaultdict(list)
    found: dict[str, zipfile.ZipInfo] = {}
    accounted = set()  # masks that are there, though in the wrong way: reporting them as missing too would mislead
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
    return _grouped(wrong)


def _decode(data: bytes, shape: tuple[int, int]) -> tuple[np.ndarray | None, list[str]]:
    """Return the mask in a TIFF and no problem, or None and the problems; pixels are decoded only if the header is as expected."""
    problems = []
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tif:
            page = tif.pages.first
            if len(tif.pages) != 1:
                problems.append(f"{len(tif.pages)} pages, expected one")
            if page.samplesperpixel != 1:
                problems.append(f"{page.samplesperpixel} bands, expected one")
            if page.dtype != np.uint8:
                problems.append(f"{page.dtype}, expected uint8: save the mask with astype('uint8')")
            found = (page.imagelength, page.imagewidth)
            if found != tuple(shape) or page.imagedepth != 1:
                problems.append(f"size {_size(found)}, expected {_size(shape)}")
            if page.compression not in _LOSSLESS:
                problems.append(f"TIFF compression {int(page.compression)}, expected none, LZW or Deflate")
            if page.is_tiled and page.tilelength * page.tilewidth > 2**24:
                problems.append(f"TIFF tiles of {page.tilelength} x {page.tilewidth} for {_size(shape)} pixels")  # a bomb of its own
            if problems:
                return None, problems
            mask = page.asarray()
    except Exception as error:  # tifffile and the codecs raise nearly anything on damaged or hostile bytes
        return None, [f"not readable as a TIFF ({_clean(str(error))})"]
    problem = _values(mask)
    return (None, [problem]) if problem else (mask, [])


def _values(mask: np.ndarray) -> str | None:
    """Return what is wrong with the values of a mask, or None."""
    values = np.unique(mask)
    if np.isin(values, (0, 1)).all():
        return None
    if np.isin(values, (0, 255)).all():
        return "values 0 and 255: divide by 255"
    return f"values {', '.join(map(str, values[:4]))}{', …' if len(values) > 4 else ''}: expected 0 (background) and 1 (landslide) only"


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
            f"truncated or damaged zip ({_clean(str(error))}): it begins as one, but its directory cannot be read. Write or copy it again"
        )
    return "not a zip file"


def _grouped(wrong: Mapping[str, list[str]]) -> list[str]:
    """Return one message a problem, with the first few names that have it: 500 equal lines would hide the others."""
    messages = []
    for problem, names in wrong.items():
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        messages.append(f"{', '.join(map(_clean, names[:4]))}{more}: {problem}")
    return messages


def _clean(text: str) -> str:
    """Return foreign text fit for a message: no control characters (a name may hold terminal codes), not endless."""
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= 120 else f"{text[:117]}…"


def _size(shape: Iterable[int]) -> str:
    """Return a shape as text, height first."""
    return " x ".join(map(str, shape))
