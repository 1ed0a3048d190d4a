"""Read TIFF tiles and masks in any layout, and write georeferenced results."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from marsls_keras.data.formats.contents import Contents
from marsls_keras.data.formats.georeference import GEO_TAGS
from marsls_keras.data.formats.pam import unread_values
from marsls_keras.data.formats.tiff_chunks import (
    JPEG,
    LOSSLESS,
    MAX_CHUNKS,
    chunk_bytes,
    largest_gap,
    require_apart,
    require_chunks,
)
from marsls_keras.data.formats.tiff_meaning import MASK, REDUCED, alpha, foreign, no_data, scaling
from marsls_keras.data.formats.tiff_structure import Page, Structure, walk
from marsls_keras.errors import InputError
from marsls_keras.files import atomic

# tifffile logs what it can recover from, such as GDAL's no-data tag, which it cannot read. What matters is raised here
# as an error that names the file.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

MAX_BYTES = 1 << 30
"""Largest size of an image in memory; a header that says more is taken as damaged."""

_SMALL, _RATIO = 1 << 26, 100
"""Pixels of more than `_SMALL` bytes and `_RATIO` times the file's size are refused as a decompression bomb."""

_KINDS = ("lsm mmstack ome ndtiff fluoview stk sis svs scn qpi ndpi bif avs eer philips scanimage nih mdgel").split()
PLAIN: Any = {f"is_{kind}": False for kind in _KINDS}
"""Options of `tifffile.TiffFile` that switch off formats of microscopes.

None of them holds tiles, and some lead to other files or have no size limit.
"""

# Width, height, bits, compression, samples, planar configuration, sample format.
_SHAPE_TAGS = (256, 257, 258, 259, 277, 284, 339)


def _layout(path: Path, axes: str, shape: tuple[int, ...], bands: int, hint: str | None = None) -> tuple[int, int, int]:
    """Return the positions of rows, columns and bands among the axes of the series.

    They follow from the names of the axes. In a stack of pages bands have no name: either each page is a band or, as in
    mmls_v1, each page is an image row whose width is the number of bands. The number of bands decides which, and a
    stack that fits both is refused.
    """
    if axes == "YXS" and shape[2] == bands:
        return 0, 1, 2
    if axes == "SYX" and shape[0] == bands:
        return 1, 2, 0
    if len(axes) == 3 and axes.endswith("YX") and "S" not in axes:
        if shape[0] == bands and shape[2] == bands:
            raise InputError(
                f"{path}: cannot tell rows from bands in {shape[0]} pages of {shape[1]} x {shape[2]}. "
                f"Write one page with {bands} samples."
            )
        if shape[0] == bands:
            return 1, 2, 0
        if shape[2] == bands:
            return 0, 1, 2
    found = f"{'x'.join(map(str, shape))} (axes {axes}). {hint or 'Is this an image tile?'}"
    raise InputError(f"{path}: expected {bands} bands of H x W, found {found}")


@dataclass(frozen=True)
class _Image:
    """Content of a TIFF file: pixels, their axes, GeoTIFF tags and no-data.

    Attributes:
        array: The pixels in the file's axis order and data type, or an array of that shape without values.
        axes: Names of its axes, as in tifffile.
        geo: Tags as (code, dtype, count, value).
        page: Header of the first page.
        pages: Number of pages that hold the pixels.
        empty: The no-data value; None if there is none.
        valid: bool (H, W) or (H, W, bands) from the file's mask page; None without one.
    """

    array: np.ndarray
    axes: str
    geo: tuple
    page: Page
    pages: int
    empty: np.generic | None
    valid: np.ndarray | None


def _load(path: Path, pixels: bool, width: int) -> _Image:
    """Read a TIFF file; without `pixels`, only its header.

    `width` is the least number of bytes that a value takes later; the limit on memory counts it.
    """
    try:
        with open(path, "rb") as file:
            structure = walk(file)
        with tifffile.TiffFile(path, **PLAIN) as tif:
            return _image(path, tif, structure, pixels, width)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path} does not exist or is not a file.") from None
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged file can make tifffile and its codecs raise almost any exception
        raise InputError(f"{path}: unreadable or truncated TIFF ({error}). Download or copy the file again.") from error


def shape_only(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array of zeros of this shape and type that takes almost no memory.

    Example:
        >>> array = shape_only((128, 128, 7), np.float32)
        >>> array.shape, array.base.nbytes
        ((128, 128, 7), 4)
    """
    return np.broadcast_to(np.zeros((), dtype), shape)


def _image(path: Path, tif: tifffile.TiffFile, structure: Structure, pixels: bool, width: int) -> _Image:
    """Check that a file holds one usable image, and read it; args as in `_load`."""
    kinds = [page.number(254, 0) & (REDUCED | MASK) for page in structure.pages]
    main, masks = [i for i, kind in enumerate(kinds) if not kind], [i for i, kind in enumerate(kinds) if kind == MASK]
    for i in main or masks:
        if reason := foreign(structure.pages[i]):
            raise InputError(f"{path}: {reason}.")
    for i in main + masks:  # other codecs take as much memory as their own headers ask for
        if (codec := structure.pages[i].number(259, 1)) not in (*LOSSLESS, JPEG):
            name = {known.value: known.name for known in tifffile.COMPRESSION}.get(codec, codec)
            raise InputError(f"{path}: compressed by {name}; write it plain, or with LZW, Deflate, ZSTD or JPEG.")
    shapes = {tuple(structure.pages[i].numbers(code) for code in _SHAPE_TAGS) for i in main}
    if len(shapes) > 1:  # checked here because tifffile takes long to find out
        raise InputError(f"{path}: expected one image, found {len(shapes)} of different shapes.")
    # A file with one image may also hold its mask and smaller copies of both; a stack of pages holds nothing else.
    series, alone = tif.series[0], len(main) == len(kinds)
    if (alone and len(tif.series) != 1) or not (alone or (main == [0] and len(series.pages) == 1 and len(masks) < 2)):
        what = f"{len(tif.series)} of different shapes" if alone else f"{len(main)} with {len(masks)} masks"
        raise InputError(f"{path}: expected one image, found {what}.")
    page = structure.pages[0]
    try:
        empty = no_data(page, series.dtype)
    except ValueError as error:
        raise InputError(f"{path}: {error}. Correct or remove it.") from None
    if reason := unread_values(path, empty):
        raise InputError(f"{path}: {reason}, or remove that file.")
    absent = _verify(
        tif, series, structure, [tif.pages[i] for i in masks], pixels, width, 0 if empty is None else empty
    )
    array = series.asarray() if pixels else shape_only(series.shape, series.dtype)
    if pixels and any(gone.any() for gone in absent):
        array[np.stack([_spread(series.keyframe, gone) for gone in absent]).reshape(array.shape)] = (
            0 if empty is None else empty
        )
    tags = series.keyframe.tags
    geo = tuple((tag.code, int(tag.dtype), tag.count, tag.value) for tag in map(tags.get, GEO_TAGS) if tag is not None)
    valid = tif.pages[masks[0]].asarray() != 0 if masks and pixels else None
    return _Image(array, series.axes, geo, page, len(main), empty, valid)


def _spread(page: tifffile.TiffPage, absent: np.ndarray) -> np.ndarray:
    """Return a bool array of the page's shape that is True in absent strips or tiles."""
    values = absent.reshape(page.chunked)
    steps = (1,) * (len(page.chunked) - len(page.chunks)) + page.chunks
    for axis, step in enumerate(steps):
        values = np.repeat(values, step, axis)
    return values[tuple(slice(length) for length in page.shape)]


def _verify(
    tif: tifffile.TiffFile,
    series: tifffile.TiffPageSeries,
    structure: Structure,
    masks: list[Any],
    pixels: bool,
    width: int,
    fill: Any,
) -> list[np.ndarray]:
    """Raise an error for defects that tifffile ignores: cut off or missing pages, and strips or tiles of wrong size.

    tifffile reads a stack with a broken chain of pages as a shorter stack, pads strips that are too short, and does
    not check sizes.

    Returns:
        For each page, or once for all pages if they are contiguous: which strips or tiles GDAL left out, bool.

    Raises:
        ValueError: If the file does not hold what its header says.
    """
    page, limit = series.keyframe, min(MAX_BYTES, max(_SMALL, _RATIO * structure.size))
    if sum(len(header.numbers(273) or header.numbers(324)) for header in structure.pages) > MAX_CHUNKS:
        raise ValueError(f"more than {MAX_CHUNKS} strips or tiles")
    for part in (page, *masks):
        row, rows = chunk_bytes(part)
        if part.imagedepth != 1 or not 0 < row * rows * math.prod(part.chunked) <= limit:
            raise ValueError(f"{'x'.join(map(str, series.shape))} is no tile")
    if not 0 < series.size * max(width, series.dtype.itemsize) <= limit:
        raise ValueError(f"{'x'.join(map(str, series.shape))} is no tile")
    if page.samplesperpixel > 1 and page.planarconfig not in (1, 2):
        raise ValueError(f"PlanarConfiguration {page.planarconfig}")
    # Contiguous pages are read as one run of bytes from the first page's offset.
    run = series.dataoffset
    taken = [*structure.headers, *([] if run is None else [(run, run + series.nbytes)])]
    absent = []
    for frame in [*(series.pages if run is None else [page]), *masks]:
        offsets, counts = ((), ()) if frame is None else (frame.dataoffsets, frame.databytecounts)
        absent.append(
            require_chunks(frame if frame in masks else page, offsets, counts, pixels, 0 if frame in masks else fill)
        )
        if frame is not None and absent[-1].any():
            frame.databytecounts = tuple(0 if gone else count for gone, count in zip(absent[-1], counts, strict=True))
        if run is None or frame in masks:
            taken += [(offset, offset + count) for offset, count in zip(offsets, counts, strict=True) if count]
    require_apart(taken, structure.size)
    if len(structure.pages) > 1 and not masks:
        _require_all_pages(structure)
    return absent[: len(absent) - len(masks)]


def _require_all_pages(structure: Structure) -> None:
    """Raise an error if a stack of pages leaves a gap as large as a page, since then its chain was cut short."""
    taken, pages = [*structure.headers, *structure.values], []
    for page in structure.pages:
        offsets, counts = (
            (page.numbers(273), page.numbers(279)) if 273 in page.tags else (page.numbers(324), page.numbers(325))
        )
        taken += [(offset, offset + count) for offset, count in zip(offsets, counts, strict=False)]
        pages.append(sum(counts))
    if (left := largest_gap(taken, structure.size)) >= min(pages) > 0:
        raise ValueError(
            f"{left} bytes in a row that none of the {len(pages)} pages refers to, as if pages had been lost"
        )


def _sidecar(path: Path, bands: int) -> np.ndarray | None:
    """Return the validity mask in the file `<name>.msk`, bool (H, W, 1 or bands); None without such a file."""
    beside = mask_beside(path)
    if not beside.is_file():
        return None
    found = _load(beside, pixels=True, width=1)
    if found.array.ndim == 2:
        return (found.array != 0)[..., None]
    return np.moveaxis(found.array, _layout(beside, found.axes, found.array.shape, bands), (0, 1, 2)) != 0


def mask_beside(path: Path) -> Path:
    """Return the path of GDAL's external mask file of an image.

    Example:
        >>> mask_beside(Path("a/tile.tif")).name
        'tile.tif.msk'
    """
    return path.with_name(f"{path.name}.msk")


def _invalid(path: Path, image: np.ndarray, found: _Image) -> np.ndarray:
    """Return which values (H, W, bands) are no-data by the no-data tag, the mask page or the external mask."""
    invalid = np.zeros(image.shape, bool)
    if found.empty is not None:
        invalid |= np.isnan(image) if np.isnan(found.empty) else image == found.empty
    own = None if found.valid is None else found.valid[..., None]
    for valid, where in ((own, path), (_sidecar(path, image.shape[2]), mask_beside(path))):
        if valid is None:
            continue
        if valid.shape[:2] != image.shape[:2]:
            size, expected = ("{} x {}".format(*array.shape) for array in (valid, image))
            raise InputError(f"{where}: a mask of {size} pixels for an image of {expected}. Write it anew.")
        invalid |= ~valid
    return invalid


def read_image(path: Path, expected: Sequence[Contents], pixels: bool = True) -> tuple[np.ndarray, tuple]:
    """Read an image and its GeoTIFF tags.

    Contiguous, planar, multi-page and rows-as-pages layouts (mmls_v1) are read, uncompressed or compressed by LZW,
    Deflate, ZSTD, PackBits, LZMA or JPEG. Values are masked if they equal GDAL's no-data tag, or if a mask page or
    `.msk` file excludes them. GDAL's scale and offset are applied.

    Args:
        path: TIFF file.
        expected: Contents that are accepted; if they differ in number of bands, axes and type of the file decide.
        pixels: Whether to read the pixels; if not, only the header is read and the array has no values.

    Returns:
        (H, W, bands) of the file's type (float if scaled), a masked array if some values are no-data; tags as (code,
        dtype, count, value).

    Raises:
        InputError: If the file is missing or truncated, has an unexpected number of bands, or its values need an
            interpretation that is not supported: white as 0, a palette, alpha, turned rows.

    Example:
        >>> array, tags = read_image(Path("train/images/col00001_row00007.tif"), [Contents(7)])  # doctest: +SKIP
        >>> array.shape  # doctest: +SKIP
        (128, 128, 7)
    """
    found = _load(path, pixels, width=4)
    array, axes = found.array, found.axes
    bands = _bands(array, axes, expected)
    hint = alpha(found.page)
    image = np.moveaxis(array, _layout(path, axes, array.shape, bands, hint), (0, 1, 2))
    if hint:
        raise InputError(f"{path}: {hint}")
    change = _scaling(path, found, bands)
    if not pixels:
        return image, found.geo
    invalid = _invalid(path, image, found)
    if change is not None:
        image = image * change[0] + change[1]
    return np.ma.MaskedArray(image, invalid) if invalid.any() else image, found.geo


def _bands(array: np.ndarray, axes: str, expected: Sequence[Contents]) -> int:
    """Return the first expected number of bands that fits the file's samples or pages, else the first expected one."""
    if len(expected) > 1 and "S" in axes:
        samples = array.shape[axes.index("S")]
        numbers = [c.bands for c in expected if c.bands == samples and (array.dtype == np.uint8 or not c.eight_bits)]
    else:
        numbers = [c.bands for c in expected if c.bands in (array.shape[0], array.shape[-1]) and not c.eight_bits]
    return numbers[0] if numbers else expected[0].bands


def _scaling(path: Path, found: _Image, bands: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return scale and offset of each band as in `scaling`, with errors as InputError."""
    try:
        change = scaling(found.page, bands)
    except ValueError as error:
        raise InputError(f"{path}: {error}. Write the values themselves.") from None
    if change is not None and found.pages > 1:
        raise InputError(
            f"{path}: GDAL's metadata tell scale or offset, but the bands are pages. Write the values themselves."
        )
    return change


def read_mask(path: Path, keys: Sequence[str] = ()) -> np.ndarray:
    """Read the single band (H, W) of a mask, of the file's type.

    A no-data tag of 0 is ignored: many programs set it so that the background is not drawn.

    Raises:
        InputError: If the file is missing or truncated, has several bands, a scale or an offset, or pixels that are
            no-data, or its values need an interpretation that is not supported.

    Example:
        >>> np.unique(read_mask(Path("train/masks/col00001_row00007.tif")))  # doctest: +SKIP
        array([0, 1], dtype=uint8)
    """
    found = _load(path, pixels=True, width=1)
    array = found.array
    if array.ndim == 3 and 1 in array.shape:
        array = np.squeeze(array, axis=array.shape.index(1))
    if array.ndim != 2:
        shape, hint = "x".join(map(str, array.shape)), alpha(found.page) or "Is this a mask?"
        raise InputError(f"{path}: expected one band of H x W, found {shape} (axes {found.axes}). {hint}")
    if _scaling(path, found, 1) is not None:
        raise InputError(
            f"{path}: GDAL's metadata tell a scale or offset, which a mask cannot have. Write 0 and 1 themselves."
        )
    background = found.empty is not None and found.empty == 0
    invalid = _invalid(path, array[..., None], replace(found, empty=None) if background else found)
    if number := int(invalid.sum()):
        how = "a mask" if found.empty is None or background else f"a mask or the no-data tag, {float(found.empty):g}"
        raise InputError(
            f"{path}: {number} pixels are no data (by {how}), so nobody knows whether they are landslide. "
            "Write 0 or 1 there and remove the tag or mask, or leave the tile out."
        )
    return array


def write_raster(path: str | Path, band: np.ndarray, geo: tuple = ()) -> None:
    """Write one band (H, W) and GeoTIFF tags as a Deflate-compressed TIFF, atomically.

    Raises:
        RunError: If the file cannot be written.

    Example:
        >>> write_raster("mask.tif", np.zeros((128, 128), np.uint8))  # doctest: +SKIP
    """
    with atomic(path) as temporary:
        tifffile.imwrite(
            temporary,
            band,
            photometric="minisblack",
            compression="zlib",
            metadata=None,
            extratags=[(*tag, True) for tag in geo],
        )
