"""Read the stored samples of a PNG file with full validation and bounded memory."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np

from marsls_keras.data.formats.limits import MAX_VALUES

GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
"""Colour types of PNG."""

_SAMPLES = {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGB_ALPHA: 4}
_BITS = {GRAY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GRAY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")

_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column, row step and column step of each pass of an interlaced picture."""

_REMARKS = 1 << 24
"""Largest number of bytes beside the pixels: colour profiles, camera data, texts."""


@dataclass(frozen=True)
class Header:
    """Header of a PNG file.

    Attributes:
        height: Rows.
        width: Columns.
        bits: Bits per sample.
        colour: Colour type.
        interlaced: 1 if the rows are stored in seven passes, else 0.
        size: Bytes of the pixels before compression.

    Example:
        >>> read_header(Path("landslide/image/df001.png")).bits  # doctest: +SKIP
        8
    """

    height: int
    width: int
    bits: int
    colour: int
    interlaced: int
    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the samples: (H, W), or (H, W, C) if there are colour or alpha channels."""
        samples = _SAMPLES[self.colour]
        return (self.height, self.width, samples) if samples > 1 else (self.height, self.width)


@dataclass(frozen=True)
class Picture:
    """Decoded PNG file.

    Attributes:
        header: Its header.
        samples: uint8 or uint16 of the shape `Header.shape`, as stored: palette indices, or values up to 15 for 4 bits.
        palette: uint8 (N, 3), the colours of a palette.
        transparency: The content of tRNS: up to N alpha values of a palette, else the transparent sample, one value per
            channel; None without tRNS.

    Example:
        >>> read_picture(Path("landslide/image/df001.png")).alpha() is None  # doctest: +SKIP
        True
    """

    header: Header
    samples: np.ndarray
    palette: np.ndarray | None
    transparency: np.ndarray | None

    def alpha(self) -> np.ndarray | None:
        """Return the opacity of each pixel, float64 (H, W) in [0, 1]; None without alpha channel and tRNS."""
        if self.header.colour in (GRAY_ALPHA, RGB_ALPHA):
            return self.samples[..., -1] / (2**self.header.bits - 1)
        if self.transparency is None:
            return None
        if self.palette is not None:
            opaque = np.full(len(self.palette) - len(self.transparency), 255)
            return np.concatenate([self.transparency, opaque])[self.samples] / 255
        same = self.samples.reshape(*self.header.shape[:2], -1) == self.transparency
        return np.where(same.all(-1), 0.0, 1.0)


def read_header(path: Path) -> Header:
    """Return the header of a PNG file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no PNG, or larger than a tile may be.

    Example:
        >>> read_header(Path("landslide/image/df001.png")).colour == RGB  # doctest: +SKIP
        True
    """
    with path.open("rb") as file:
        return _start(file)


def read_picture(path: Path) -> Picture:
    """Decode a PNG file; data after its end are ignored.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no PNG, damaged, truncated, or larger than a tile may be.

    Example:
        >>> read_picture(Path("landslide/image/df001.png")).samples.shape  # doctest: +SKIP
        (256, 256, 3)
    """
    with path.open("rb") as file:
        header = _start(file)
        size = path.stat().st_size
        if size > (most := header.size + header.size // 64 + _REMARKS):
            raise ValueError(f"{size:,} bytes for a picture that takes {most:,} at most")
        kinds: list[bytes] = []
        parts: dict[bytes, list[bytes]] = {b"PLTE": [], b"tRNS": [], b"IDAT": []}
        while not kinds or kinds[-1] != b"IEND":
            kind, content = _chunk(file, size)
            kinds.append(kind)
            if kind in parts:
                parts[kind].append(content)
            elif kind != b"IEND" and not kind[0] & 0x20:
                raise ValueError(f"an unknown part {ascii(kind.decode('latin-1'))}")
    if sum(a == b"IDAT" != b for a, b in pairwise(kinds)) != 1 or max(len(parts[b"PLTE"]), len(parts[b"tRNS"])) > 1:
        raise ValueError("its parts are not in order")
    palette = _palette(header, parts[b"PLTE"])
    transparency = _transparency(header, palette, parts[b"tRNS"])
    return Picture(header, _samples(header, parts[b"IDAT"], palette), palette, transparency)


def _start(file: BinaryIO) -> Header:
    """Return the header at the start of a file."""
    if file.read(len(_SIGNATURE)) != _SIGNATURE:
        raise ValueError("it does not begin like a PNG")
    return _header(*_chunk(file, _HEADER.size))


def _chunk(file: BinaryIO, most: int) -> tuple[bytes, bytes]:
    """Return type and content of the next chunk of the file.

    Raises:
        ValueError: If it is cut off, longer than `most` bytes, or its checksum is wrong.
    """
    start = file.read(8)
    length = int.from_bytes(start[:4], "big")
    if len(start) < 8 or length > most:
        raise ValueError("cut off")
    content, checksum = file.read(length), file.read(4)
    if len(content) < length or len(checksum) < 4:
        raise ValueError("cut off")
    if zlib.crc32(content, zlib.crc32(start[4:])) != int.from_bytes(checksum, "big"):
        raise ValueError(f"wrong checksum of {ascii(start[4:].decode('latin-1'))}")
    return start[4:], content


def _header(kind: bytes, content: bytes) -> Header:
    """Parse and check the IHDR chunk."""
    if kind != b"IHDR" or len(content) != _HEADER.size:
        raise ValueError("it does not begin like a PNG")
    width, height, bits, colour, *method, interlaced = _HEADER.unpack(content)
    if bits not in _BITS.get(colour, ()) or any(method) or interlaced > 1:
        raise ValueError(f"colour type {colour} of {bits} bits, methods {method} and {interlaced}: there is none such")
    values = height * width * (3 if colour == PALETTE else _SAMPLES[colour])
    if not 0 < values <= MAX_VALUES:
        raise ValueError(f"{height} x {width} pixels are no tile")
    # Each row of each pass begins with a byte that names its filter.
    passes = (
        [(len(range(r, height, dr)), len(range(c, width, dc))) for r, c, dr, dc in _PASSES]
        if interlaced
        else [(height, width)]
    )
    size = sum(rows * (1 + (columns * _SAMPLES[colour] * bits + 7) // 8) for rows, columns in passes if columns)
    return Header(height, width, bits, colour, interlaced, size)


def _palette(header: Header, parts: list[bytes]) -> np.ndarray | None:
    """Return the colours of a palette (N, 3); None for other colour types, where a palette is only a suggestion."""
    if header.colour != PALETTE:
        return None
    colours = parts[0] if parts else b""
    if not colours or len(colours) % 3 or len(colours) > 3 * 2**header.bits:
        raise ValueError(f"a palette of {len(colours)} bytes")
    return np.frombuffer(colours, np.uint8).reshape(-1, 3)


def _transparency(header: Header, palette: np.ndarray | None, parts: list[bytes]) -> np.ndarray | None:
    """Parse the tRNS chunk as in `Picture.transparency`; None without one."""
    if not parts:
        return None
    if palette is not None and len(parts[0]) <= len(palette):
        return np.frombuffer(parts[0], np.uint8)
    if header.colour in (GRAY, RGB) and len(parts[0]) == 2 * _SAMPLES[header.colour]:
        return np.frombuffer(parts[0], ">u2") & (2**header.bits - 1)
    raise ValueError(f"a tRNS of {len(parts[0])} bytes")


def _samples(header: Header, parts: list[bytes], palette: np.ndarray | None) -> np.ndarray:
    """Return the stored samples.

    The codec would apply palette and transparency, so it gets a copy of the file without them.
    """
    data = b"".join(parts)
    unpacker = zlib.decompressobj()
    # The codec ignores surplus data.
    if len(unpacker.decompress(data, header.size + 1)) != header.size or not unpacker.eof:
        raise ValueError(f"its pixels are not the {header.size} bytes that its header tells")
    colour = GRAY if palette is not None else header.colour
    start = _HEADER.pack(header.width, header.height, header.bits, colour, 0, 0, header.interlaced)
    written = [_part(b"IHDR", start), _part(b"IDAT", data), _part(b"IEND", b"")]
    samples = imagecodecs.png_decode(_SIGNATURE + b"".join(written))
    if samples.shape != header.shape:
        raise ValueError(f"{samples.shape} instead of {header.shape}")
    if header.bits < 8:
        samples //= 255 // (2**header.bits - 1)  # libpng scales them to 8 bits
    if palette is not None and samples.max() >= len(palette):
        raise ValueError(f"pixels of colour {samples.max()} in a palette of {len(palette)}")
    return samples


def _part(kind: bytes, content: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(content, zlib.crc32(kind)).to_bytes(4, "big")
