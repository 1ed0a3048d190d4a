"""Damage to files, as by transfers, disks or attackers, deterministic for a seed."""

from __future__ import annotations

import io
import zipfile
import zlib

import numpy as np
import tifffile
from fuzz_flavours import FLAVOURS, NAMES, zip_of

_NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    16,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
)


def damaged(flavour: str, seed: int) -> tuple[bytes, bool]:
    """Return a damaged file of a flavour, and whether its checksums, if any, were updated to fit the damage."""
    rng = np.random.default_rng([seed, zlib.crc32(flavour.encode())])
    kind = FLAVOURS[flavour]
    data = kind.make()
    deep = bool(rng.random() < 0.5)
    if kind.read == "zip" and deep:
        return _inside(data, rng), True
    data = _mutate(data, rng)
    return (_mended(data), True) if kind.name.endswith(".png") and deep else (data, False)


def _inside(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a zip of which one mask is damaged."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        masks = [archive.read(name) for name in NAMES]
        method = archive.infolist()[0].compress_type
    which = int(rng.integers(3))
    masks[which] = _mutate(masks[which], rng)
    return zip_of(masks, method)


def _mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Return bytes with one to three damages."""
    hot = _headers(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        place = int(rng.choice(hot)) if hot and rng.random() < 0.6 else int(rng.integers(max(len(data), 1)))
        data = _damage(bytearray(data), rng, min(place, max(len(data) - 1, 0)), hot)
    return bytes(data)


def _damage(data: bytearray, rng: np.random.Generator, place: int, hot: list[int]) -> bytes:
    length = int(rng.choice([1, 2, 4, 8, 16, 64, 256, 1024]))
    kind = rng.choice(
        ["bits", "bytes", "field", "field", "field", "cut", "insert", "remove", "zeros", "ones", "splice", "foreign"]
    )
    if not data:
        return b""
    if kind == "bits":
        for at in (place, *rng.integers(len(data), size=rng.integers(4))):
            data[at] ^= 1 << int(rng.integers(8))
    elif kind == "bytes":
        data[place : place + length] = rng.bytes(min(length, len(data) - place))
    elif kind == "field":
        size, order = int(rng.choice([2, 4, 8])), "big" if data[:2] in (b"MM", b"\x89P") else "little"
        now = int.from_bytes(data[place : place + size], order)
        near = [now - 1, now + 1, now // 2, now * 2]  # a height, a count, a length that is a little wrong
        pool = [[*_NUMBERS, len(data), place], near, near, hot or near][
            int(rng.integers(4))
        ]  # hot: a pointer to another header, or a ring
        number = pool[int(rng.integers(len(pool)))] % 256**size
        data[place : place + size] = number.to_bytes(size, order)[: len(data) - place]
    elif kind == "cut":
        del data[place:]
    elif kind == "insert":
        data[place:place] = rng.bytes(length)
    elif kind == "remove":
        del data[place : place + length]
    elif kind in ("zeros", "ones"):
        data[place : place + length] = bytes([255 * (kind == "ones")]) * min(length, len(data) - place)
    elif kind == "splice":
        start = int(rng.integers(len(data)))
        part = data[start : start + length]
        data[place : place + len(part)] = part
    else:
        other = FLAVOURS[str(rng.choice(list(FLAVOURS)))].make()
        start = int(rng.integers(len(other)))
        data[place : place + length] = other[start : start + length]
    return bytes(data)


def _headers(data: bytes) -> list[int]:
    """Return positions in the headers of a file."""
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0"):
        with tifffile.TiffFile(io.BytesIO(data)) as tif:
            big, pages = tif.is_bigtiff, [page for i, page in enumerate(tif.pages) if i < 4]
            step, head = (20, 8) if big else (12, 2)
            starts = [page.offset for page in pages]
        found = [4] * 4
        for start in starts:
            number = int.from_bytes(data[start : start + head], "little" if data[:1] == b"I" else "big")
            end = start + head + number * step
            found += [start, end, end]
            found += [
                start + head + i * step + field for i in range(number) for field in (0, 2, 4, step - (8 if big else 4))
            ]
        return found
    if data[:2] == b"PK":
        return [*range(30), *range(max(len(data) - 250, 0), len(data))]
    if data[:4] == b"\x89HDF":
        return [i for i in range(min(len(data), 4096)) if any(data[i : i + 4])]
    return list(range(8, 80))


def _mended(data: bytes) -> bytes:
    """Return a PNG with updated checksums, as far as its chunks can be found."""
    made, at = bytearray(data), 8
    while at + 12 <= len(made):
        end = at + 8 + int.from_bytes(made[at : at + 4], "big")
        if end + 4 > len(made):
            break
        made[end : end + 4] = zlib.crc32(made[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(made)
