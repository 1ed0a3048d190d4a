"""PNG files encoded without a library: all depths, palettes, transparency, interlacing."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column, and steps of each pass of Adam7."""


def part(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def make_png(
    samples: np.ndarray,
    colour: int,
    bits: int = 8,
    palette: list[tuple[int, int, int]] | None = None,
    trns: bytes | None = None,
    interlaced: bool = False,
    extra: bytes = b"",
) -> bytes:
    """Return a PNG of samples (H, W) or (H, W, C); `extra` are parts before its pixels."""
    height, width = samples.shape[:2]
    passes = [samples[r::dr, c::dc] for r, c, dr, dc in _PASSES] if interlaced else [samples]
    raw = b"".join(b"\0" + _packed(row.ravel(), bits) for one in passes if one.size for row in one)
    parts = [part(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)), extra]
    parts += [part(b"PLTE", bytes(sum(palette, ())))] if palette is not None else []
    parts += [part(b"tRNS", trns)] if trns is not None else []
    middle = len(data := zlib.compress(raw)) // 2
    parts += [part(b"IDAT", data[:middle]), part(b"IDAT", data[middle:]), part(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _packed(row: np.ndarray, bits: int) -> bytes:
    """Return the samples of a row in as many bits each, the first in the highest bits."""
    if bits == 16:
        return row.astype(">u2").tobytes()
    digits = (row[:, None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(digits.ravel().astype(np.uint8)).tobytes()


def save(path: Path, *args, **kwargs) -> Path:
    path.write_bytes(make_png(*args, **kwargs))
    return path
