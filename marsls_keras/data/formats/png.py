"""Read PNG files: RGB images and masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from marsls_keras.data.formats.contents import Contents
from marsls_keras.data.formats.png_chunks import (
    GRAY,
    GRAY_ALPHA,
    PALETTE,
    RGB,
    RGB_ALPHA,
    Picture,
    read_header,
    read_picture,
)
from marsls_keras.data.formats.tiff import shape_only
from marsls_keras.errors import InputError

_KINDS = {GRAY: "gray", RGB: "RGB", PALETTE: "RGB", GRAY_ALPHA: "gray with alpha", RGB_ALPHA: "RGB with alpha"}
"""Names of the colour types in messages."""

_Found = TypeVar("_Found")


def read_image(path: Path, expected: Sequence[Contents], pixels: bool = True) -> tuple[np.ndarray, tuple]:
    """Return an image as (H, W, 3) and no tags.

    Args are as in `marsls_keras.data.formats.tiff.read_image`. The array has the type stored in the file; or float32
    with NaN at transparent pixels (alpha channel or tRNS), which are no-data. Palette indices are replaced by their
    colours.

    Raises:
        InputError: If the file is missing, damaged, no PNG, not RGB, partly transparent, or larger than a tile may be.

    Example:
        >>> read_image(Path("landslide/image/df001.png"), [Contents(3, eight_bits=True)])[0].shape  # doctest: +SKIP
        (256, 256, 3)
    """
    header = _read(path, read_header)
    picture_expected = any(contents.bands == 3 for contents in expected)
    if header.colour in (GRAY, GRAY_ALPHA) or not picture_expected:
        wanted = "RGB" if picture_expected else f"{expected[0].bands} bands"
        raise InputError(f"{path}: expected {wanted}, found {_KINDS[header.colour]}. Is this an image tile?")
    if not pixels:
        return shape_only((header.height, header.width, 3), np.uint16 if header.bits == 16 else np.uint8), ()
    picture = _read(path, read_picture)
    image = picture.samples[..., :3] if picture.palette is None else picture.palette[picture.samples]
    alpha = picture.alpha()
    if alpha is None or alpha.min() == 1:
        return image, ()
    if half := np.count_nonzero((alpha > 0) & (alpha < 1)):
        raise InputError(f"{path}: expected RGB, found {half} half-transparent pixels. Is this an image tile?")
    if header.bits == 16:
        return image, ()  # 16 bits are refused later, so transparency does not matter
    return np.where(alpha[..., None] == 0, np.float32(np.nan), image.astype(np.float32)), ()


def read_mask(path: Path, keys: Sequence[str] = ()) -> np.ndarray:
    """Return a mask (H, W) of integers: palette indices, or gray values, which may be saved as equal RGB.

    Transparent pixels of value 0 are background, since many programs save masks like that.

    Raises:
        InputError: If the file is missing, damaged, no PNG, coloured or larger than a tile may be, or if transparency
            contradicts or hides the labels.

    Example:
        >>> np.unique(read_mask(Path("landslide/mask/df001.png")))  # doctest: +SKIP
        array([  0, 255], dtype=uint8)
    """
    picture = _read(path, read_picture)
    mask = _classes(path, picture)
    alpha = picture.alpha()
    if alpha is None or alpha.min() == 1:
        return mask
    if mask.min() == mask.max():
        raise InputError(
            f"{path}: its one value is {mask.max()} and the labels lie only in how transparent it is, if anywhere. "
            "Save the mask without transparency, 0 where there is no landslide and 1 or 255 where there is."
        )
    if hidden := np.count_nonzero((alpha == 0) & (mask != 0)):
        raise InputError(
            f"{path}: {hidden} labelled pixels are transparent, and nobody knows what they are. "
            "Save the mask without alpha."
        )
    return mask


def _classes(path: Path, picture: Picture) -> np.ndarray:
    """Return the values of a mask; transparency is ignored."""
    samples, header = picture.samples, picture.header
    if picture.palette is not None:
        colours = picture.palette.tolist()
        if colours[:2] == [[255] * 3, [0] * 3] and samples.max() == 1:
            raise InputError(
                f"{path}: a palette in which class 0 is white and class 1 is black: "
                "it cannot be told which is landslide. "
                "Save the mask in gray, 0 where there is no landslide and 1 or 255 where there is."
            )
        return samples
    if header.colour == GRAY:
        # With less than 8 bits, values up to 1 are classes; others are scaled, so that the highest one becomes 255.
        return samples if header.bits >= 8 or samples.max() <= 1 else samples * np.uint8(255 // (2**header.bits - 1))
    gray = samples[..., 0]
    if header.colour != GRAY_ALPHA and (samples[..., :3] != gray[..., None]).any():
        raise InputError(f"{path}: expected a gray mask, found colours. Is this a mask?")
    return gray


def _read(path: Path, reader: Callable[[Path], _Found]) -> _Found:
    """Call a reader on a file, and raise any of its errors as an InputError that names the file."""
    try:
        return reader(path)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path} does not exist or is not a file.") from None
    except MemoryError:
        raise InputError(f"{path}: not enough memory to read it. Is it a tile? Cut it, or free some memory.") from None
    except Exception as error:  # a damaged file can make the codec raise almost any exception
        raise InputError(f"{path}: unreadable or truncated PNG ({error}). Download or copy the file again.") from error
