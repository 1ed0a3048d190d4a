"""One small valid file of every kind that the package reads, with deterministic bytes."""

from __future__ import annotations

import io
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import tifffile

SIDES = (24, 20)
BANDS = np.random.default_rng(1).random((*SIDES, 7)).astype(np.float32)
COLOURS = np.random.default_rng(2).integers(0, 256, (*SIDES, 3), np.uint8)
LABELS = (np.random.default_rng(3).random(SIDES) < 0.3).astype(np.uint8)
SENTINEL = np.random.default_rng(4).random((*SIDES, 14))
NAMES = ("col00001_row00001.tif", "col00002_row00001.tif", "col00003_row00001.tif")


@dataclass(frozen=True)
class Flavour:
    """A kind of file.

    Attributes:
        read: What it is read as: "image", "mask" or "zip".
        name: File name.
        make: Returns its bytes.
    """

    read: str
    name: str
    make: Callable[[], bytes]


def _tiff(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    big = {"bigtiff": options.pop("bigtiff", False), "byteorder": options.pop("byteorder", "<")}
    with tifffile.TiffWriter(file, **big) as writer:
        writer.write(array, **{"photometric": "minisblack", "metadata": None, **options})
    return file.getvalue()


def _image(**options) -> bytes:
    return _tiff(BANDS, **{"planarconfig": "contig", **options})


def _planes(**options) -> bytes:
    return _tiff(np.ascontiguousarray(np.moveaxis(BANDS, -1, 0)), planarconfig="separate", **options)


def _pages(array: np.ndarray, **options) -> bytes:
    return _tiff(np.ascontiguousarray(array), **options)


def _png(samples: np.ndarray, colour: int, bits: int = 8, palette: bytes = b"", trns: bytes = b"") -> bytes:
    """Return a PNG; of fewer than 8 bits only in rows that fill whole bytes."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = samples.shape[:2]
    digits = (samples.reshape(height, -1, 1) >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(digits.reshape(height, -1).astype(np.uint8), axis=1)
    raw = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)),
        (b"PLTE", palette),
        (b"tRNS", trns),
    ]
    parts += [(b"tEXt", b"Comment\0a remark"), (b"IDAT", raw[:99]), (b"IDAT", raw[99:])]
    return b"\x89PNG\r\n\x1a\n" + b"".join(part(*one) for one in parts if one[1]) + part(b"IEND", b"")


def _h5(
    key: str,
    array: np.ndarray,
    attributes: dict | None = None,
    rows: int | None = None,
    newest: bool = False,
    **options,
) -> bytes:
    """Return an HDF5 file of one dataset, of which the first rows alone are written."""
    creation, access = h5py.h5p.create(h5py.h5p.FILE_CREATE), h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    creation.set_obj_track_times(False)
    access.set_libver_bounds(h5py.h5f.LIBVER_LATEST if newest else h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_LATEST)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "made.h5")
        with h5py.File(h5py.h5f.create(bytes(path), h5py.h5f.ACC_TRUNC, creation, access)) as file:
            data = file.create_dataset(key, array.shape, array.dtype, **options)
            data.attrs.update(attributes or {})
            data[:rows] = array[:rows]
        return path.read_bytes()


def _zip(method: int) -> bytes:
    return zip_of([_tiff(np.roll(LABELS, i), compression="lzw" if i else None) for i in range(3)], method)


def zip_of(masks: list[bytes], method: int) -> bytes:
    """Return a submission of three masks."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in zip(NAMES, masks, strict=True):
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


def _flavours() -> dict[str, Flavour]:
    made: dict[str, Flavour] = {}

    def add(read: str, ending: str, kinds: dict[str, Callable[[], bytes]]) -> None:
        for kind, make in kinds.items():
            made[f"{ending} {read}: {kind}"] = Flavour(read, f"tile.{ending}", cache(make))

    nodata = [(42113, "s", 0, "-9999", True)]
    add(
        "image",
        "tif",
        {
            "contiguous": _image,
            "contiguous, strips": lambda: _image(rowsperstrip=5),
            "contiguous, LZW": lambda: _image(compression="lzw", rowsperstrip=8),
            "contiguous, deflate, predictor": lambda: _image(compression="zlib", predictor=3),
            "contiguous, no-data tag": lambda: _tiff(
                np.where(BANDS < 0.1, -9999, BANDS), planarconfig="contig", extratags=nodata
            ),
            "planar": _planes,
            "planar, deflate": lambda: _planes(compression="zlib", rowsperstrip=8),
            "tiled": lambda: _image(tile=(16, 16)),
            "tiled, deflate": lambda: _image(tile=(16, 16), compression="zlib"),
            "BigTIFF": lambda: _image(bigtiff=True),
            "big endian, LZW": lambda: _image(byteorder=">", compression="lzw"),
            "pages of bands": lambda: _pages(np.moveaxis(BANDS, -1, 0)),
            "pages of rows": lambda: _pages(BANDS),
            "pages of rows, deflate": lambda: _pages(BANDS, compression="zlib"),
            "RGB": lambda: _tiff(COLOURS, photometric="rgb"),
        },
    )
    add(
        "mask",
        "tif",
        {
            "plain": lambda: _tiff(LABELS),
            "LZW": lambda: _tiff(LABELS, compression="lzw", rowsperstrip=6),
            "float": lambda: _tiff(LABELS.astype(np.float32)),
            "tiled, deflate, BigTIFF": lambda: _tiff(LABELS, compression="zlib", tile=(16, 16), bigtiff=True),
        },
    )
    palette = bytes([0, 0, 0, 200, 30, 40, 9, 9, 9])
    add(
        "image",
        "png",
        {
            "RGB": lambda: _png(COLOURS, 2),
            "RGB, tRNS": lambda: _png(COLOURS // 128 * 128, 2, trns=bytes(6)),
            "palette, tRNS": lambda: _png(COLOURS[..., 0] % 3, 3, 4, palette, b"\xff\x00"),
            "alpha": lambda: _png(np.dstack([COLOURS, np.where(LABELS, 255, 0).astype(np.uint8)]), 6),
        },
    )
    add(
        "mask",
        "png",
        {
            "gray": lambda: _png(LABELS * np.uint8(255), 0),
            "gray of 1 bit": lambda: _png(LABELS[:, :16], 0, 1),
            "palette": lambda: _png(LABELS, 3, 2, palette),
            "alpha": lambda: _png(np.dstack([LABELS, LABELS * 0 + 255]), 4),
        },
    )
    add(
        "image",
        "h5",
        {
            "contiguous": lambda: _h5("img", SENTINEL),
            "chunks, shuffle, gzip": lambda: _h5("img", SENTINEL, chunks=(8, 8, 14), compression="gzip", shuffle=True),
            "chunks, checksums": lambda: _h5("img", SENTINEL.astype("f4"), chunks=(8, 8, 7), fletcher32=True),
            "chunks, LZF, absent": lambda: _h5("img", SENTINEL, rows=8, chunks=(8, 8, 14), compression="lzf"),
            "scale-offset, attributes": lambda: _h5(
                "img",
                (SENTINEL * 1000).astype("i2"),
                {"scale_factor": 0.001, "_FillValue": np.int16(3)},
                chunks=(8, 8, 14),
                scaleoffset=0,
            ),
            "newest form": lambda: _h5("img", SENTINEL, newest=True, chunks=(8, 8, 14), maxshape=(None, 20, 14)),
        },
    )
    add(
        "mask",
        "h5",
        {
            "contiguous": lambda: _h5("mask", LABELS),
            "gzip": lambda: _h5("mask", LABELS, compression="gzip", chunks=(8, 8)),
        },
    )
    made["zip: stored"] = Flavour("zip", "masks.zip", lambda: _zip(zipfile.ZIP_STORED))
    made["zip: deflated"] = Flavour("zip", "masks.zip", lambda: _zip(zipfile.ZIP_DEFLATED))
    return made


FLAVOURS = _flavours()
"""All of them, by a name for messages."""
