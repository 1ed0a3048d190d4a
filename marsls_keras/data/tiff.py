"""TIFF files: tiles and masks of every layout that TIFF has, and the writer of georeferenced results."""

from __future__ import annotations

import logging
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from marsls_keras.data.bands import BANDS, RGB
from marsls_keras.data.georeference import GEO_TAGS
from marsls_keras.errors import InputError
from marsls_keras.files import atomic

# tifffile logs what it survives (it cannot read GDAL's no-data tag, for one); what matters is raised here as an error that names the file.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

MAX_BYTES = 1 << 30
"""A header that tells of more than this is damaged, and must not take the memory."""


def _layout(path: Path, axes: str, shape: tuple[int, ...], bands: int) -> tuple[int, int, int]:
    """Return which axes of the series are rows, columns and bands.

    The axes' names decide. A stack of pages has no name for its bands: either each page is a band, or, as in mmls_v1, each page is an
    image row whose width is the bands; the number of bands tells which, and what fits both is refused.
    """
    if axes == "YXS" and shape[2] == bands:
        return 0, 1, 2
    if axes == "SYX" and shape[0] == bands:
        return 1, 2, 0
    if len(axes) == 3 and axes.endswith("YX") and "S" not in axes:
        if shape[0] == bands and shape[2] == bands:
            raise InputError(
                f"{path}: cannot tell rows from bands in {shape[0]} pages of {shape[1]} x {shape[2]}. Write one page with {bands} samples."
            )
        if shape[0] == bands:
            return 1, 2, 0
        if shape[2] == bands:
            return 0, 1, 2
    raise InputError(f"{path}: expected {bands} bands of H x W, found {'x'.join(map(str, shape))} (axes {axes}). Is this an image tile?")


def _load(path: Path, pixels: bool) -> tuple[np.ndarray, str, tuple]:
    """Return the first series' pixels, its axes and the GeoTIFF tags of its first page; without `pixels` an array of that shape alone."""
    try:
        with tifffile.TiffFile(path) as tif:
            if len(tif.series) != 1:
                raise InputError(f"{path}: expected one image, found {len(tif.series)} of different shapes.")
            series = tif.series[0]
            _verify(tif, series)
            tags = series.keyframe.tags
            geo = tuple((tag.code, int(tag.dtype), tag.count, tag.value) for tag in map(tags.get, GEO_TAGS) if tag is not None)
            return series.asarray() if pixels else shape_only(series.shape, series.dtype), series.axes, geo
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path} does not exist or is not a file.") from None
    except InputError:
        raise
    except Exception as error:  # a damaged file makes tifffile and its codecs raise nearly anything
        raise InputError(f"{path}: unreadable or truncated TIFF ({error}). Download or copy the file again.") from error


def shape_only(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array of zeros that has this shape and type and takes no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def _verify(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """Refuse what tifffile passes over: pages, strips or tiles that are cut off, absent, or not of the size the header tells.

    tifffile reads a stack whose chain of pages is broken as a shorter one, fills absent strips with zeros, and believes any size.

    Raises:
        ValueError: If the file does not hold what its header tells.
    """
    file, page = tif.filehandle, series.keyframe
    file.seek(tif.pages.next_page_offset or 0)
    if file.read(tif.tiff.offsetsize) != bytes(tif.tiff.offsetsize):
        raise ValueError("the chain of pages is broken")
    if not 0 < series.nbytes <= MAX_BYTES:
        raise ValueError(f"{'x'.join(map(str, series.shape))} is no tile")
    if page.samplesperpixel > 1 and page.planarconfig not in (1, 2):
        raise ValueError(f"PlanarConfiguration {page.planarconfig}")
    chunks = math.prod(page.chunked)
    stored = chunks * math.prod(page.chunks) * series.dtype.itemsize if page.is_tiled else page.nbytes
    plain = page.compression == 1 and page.bitspersample % 8 == 0
    # Pages that follow one another are read as one run of bytes from the first one's offset.
    run = series.dataoffset
    taken = [(page.offset, page.offset + len(page.tags) * tif.tiff.tagsize)]
    taken += [] if run is None else [(run, run + series.nbytes)]
    for frame in series.pages if run is None else [page]:
        offsets, counts = ((), ()) if frame is None else (frame.dataoffsets, frame.databytecounts)
        if not chunks == len(offsets) == len(counts) or not all(counts):
            raise ValueError("strips or tiles are absent")
        if plain and sum(counts) != stored:
            raise ValueError(f"{sum(counts)} bytes of pixels instead of {stored}")
        taken += [(offset, offset + count) for offset, count in zip(offsets, counts, strict=True) if run is None]
    taken.sort()
    if max(end for _, end in taken) > file.size:
        raise ValueError("cut off")
    if any(start < end for (_, end), (start, _) in pairwise(taken)):
        raise ValueError("parts of the file overlap")


def read_image(path: Path, bands: int | None, pixels: bool = True) -> tuple[np.ndarray, tuple]:
    """Return an image and its GeoTIFF tags.

    Contiguous, planar, multi-page and rows-as-pages layouts (mmls_v1) are read, with any compression that imagecodecs knows.

    Args:
        path: TIFF file.
        bands: Number of bands it has to have; None for the seven of a Mars tile, or three where it is a picture of eight bits.
        pixels: Whether they are wanted; if not, only the header is read and the array has no values.

    Returns:
        (H, W, bands) of the file's type; tags as (code, dtype, count, value).

    Raises:
        InputError: If the file is missing, truncated or has another number of bands.
    """
    array, axes, geo = _load(path, pixels)
    if bands is None:
        picture = array.dtype == np.uint8 and "S" in axes and array.shape[axes.index("S")] == len(RGB)
        bands = len(RGB) if picture else len(BANDS)
    return np.moveaxis(array, _layout(path, axes, array.shape, bands), (0, 1, 2)), geo


def read_mask(path: Path) -> np.ndarray:
    """Return the one band (H, W) of a mask, of the file's type.

    Raises:
        InputError: If the file is missing, truncated or has several bands.
    """
    array, axes, _ = _load(path, pixels=True)
    if array.ndim == 3 and 1 in array.shape:
        array = np.squeeze(array, axis=array.shape.index(1))
    if array.ndim != 2:
        raise InputError(f"{path}: expected one band of H x W, found {'x'.join(map(str, array.shape))} (axes {axes}). Is this a mask?")
    return array


def write_raster(path: str | Path, band: np.ndarray, geo: tuple = ()) -> None:
    """Write one band (H, W) as a deflated TIFF, atomically, with the GeoTIFF tags of the tile it belongs to.

    Raises:
        RunError: If the file cannot be written.
    """
    with atomic(path) as temporary:
        tifffile.imwrite(
            temporary, band, photometric="minisblack", compression="zlib", metadata=None, extratags=[(*tag, True) for tag in geo]
        )
