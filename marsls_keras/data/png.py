"""PNG files of Bijie and Nepal: pictures and masks."""

from __future__ import annotations

import struct
from pathlib import Path

import imagecodecs
import numpy as np

from marsls_keras.data.bands import RGB
from marsls_keras.data.tiff import MAX_BYTES, shape_only
from marsls_keras.errors import InputError

_KINDS = {0: ("gray", 1), 2: ("RGB", 3), 3: ("RGB", 3), 4: ("gray with alpha", 2), 6: ("RGB with alpha", 4)}
"""What a PNG's colour type says, and the channels that it is decoded to; 3 is a palette of colours."""


def read_image(path: Path, bands: int | None, pixels: bool = True) -> tuple[np.ndarray, tuple]:
    """Return a picture as (H, W, 3), of the file's type, and no tags; args as in `marsls_keras.data.tiff.read_image`.

    Raises:
        InputError: If the file is missing, truncated, no PNG or not RGB.
    """
    array, kind = _load(path, pixels)
    if kind != "RGB" or bands not in (None, len(RGB)):
        wanted = "RGB" if bands in (None, len(RGB)) else f"{bands} bands"
        raise InputError(f"{path}: expected {wanted}, found {kind}. Is this an image tile?")
    return array, ()


def read_mask(path: Path) -> np.ndarray:
    """Return a mask, (H, W) of the file's type; one that was saved in colour is read if its colours are grays.

    Raises:
        InputError: If the file is missing, truncated, no PNG or in other colours.
    """
    array, kind = _load(path, pixels=True)
    if array.ndim == 2:
        return array
    gray = array[..., 0]
    if kind.startswith("RGB") and (array[..., :3] != gray[..., None]).any():
        raise InputError(f"{path}: expected a gray mask, found colours. Is this a mask?")
    return gray


def _load(path: Path, pixels: bool) -> tuple[np.ndarray, str]:
    """Return a PNG's pixels and what they are; without `pixels` an array of that shape alone."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path} does not exist or is not a file.") from None
    try:
        if not data.startswith(b"\x89PNG\r\n\x1a\n") or data[12:16] != b"IHDR":
            raise ValueError("it does not begin like a PNG")
        width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
        kind, channels = _KINDS[colour]
        if not 0 < height * width * channels * max(bits // 8, 1) <= MAX_BYTES:
            raise ValueError(f"{height} x {width} pixels are no tile")
        shape = (height, width, channels) if channels > 1 else (height, width)
        if not pixels:
            return shape_only(shape, np.uint16 if bits == 16 else np.uint8), kind
        array = imagecodecs.png_decode(data)
        if array.shape != shape:
            raise ValueError(f"{array.shape} instead of {shape}")
        return array, kind
    except Exception as error:  # a damaged file makes the codec raise nearly anything
        raise InputError(f"{path}: unreadable or truncated PNG ({error}). Download or copy the file again.") from error
