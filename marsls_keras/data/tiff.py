"""The one reader of tiles and masks, for every release and TIFF layout, and the writer of georeferenced results."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from scipy import ndimage

from marsls_keras.data.bands import BANDS, RELEASES
from marsls_keras.errors import InputError, listing
from marsls_keras.files import atomic

# tifffile logs what it survives (it cannot read GDAL's no-data tag, for one); what matters is raised here as an error that names the file.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

NO_DATA = -1e30
"""Values below this are no-data: the challenge's tiles hold float32's minimum, -3.4028235e38."""

_FAR_OUT = 1e6
"""Beyond this, up or down, values are of no band (metres of height are the largest): the header tells a wrong type or predictor."""

_MAX_BYTES = 1 << 30
"""A header that tells of more than this is damaged, and must not take the memory."""

_GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)  # pixel scale, tie points, transformation, and the three GeoKey tags


@dataclass(frozen=True)
class Tile:
    """One tile, in canonical bands.

    Attributes:
        image: float32 (H, W, 7), canonical order and scale, no-data filled from the nearest valid pixel of the band.
        valid: bool (H, W), False where any band was no-data (below -1e30, NaN or infinite).
        release: Name of the release the file is of.
        path: The file.
        geo: GeoTIFF tags as (code, dtype, count, value), empty if the file has none.
    """

    image: np.ndarray
    valid: np.ndarray
    release: str
    path: Path
    geo: tuple[tuple[int, int, int, Any], ...]


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


def _read(path: Path, bands: int | None) -> tuple[np.ndarray, tuple]:
    """Return the first series as (H, W, bands), or (H, W) if `bands` is None, and the GeoTIFF tags."""
    array, axes, geo = _load(path, pixels=True)
    if bands is not None:
        return np.moveaxis(array, _layout(path, axes, array.shape, bands), (0, 1, 2)), geo
    if array.ndim == 3 and 1 in array.shape:
        array = np.squeeze(array, axis=array.shape.index(1))
    if array.ndim != 2:
        raise InputError(f"{path}: expected one band of H x W, found {'x'.join(map(str, array.shape))} (axes {axes}). Is this a mask?")
    return array, geo


def _load(path: Path, pixels: bool) -> tuple[Any, str, tuple]:
    """Return the first series' pixels (or its shape), its axes and the GeoTIFF tags of its first page."""
    try:
        with tifffile.TiffFile(path) as tif:
            if len(tif.series) != 1:
                raise InputError(f"{path}: expected one image, found {len(tif.series)} of different shapes.")
            series = tif.series[0]
            _verify(tif, series)
            tags = series.keyframe.tags
            geo = tuple((tag.code, int(tag.dtype), tag.count, tag.value) for tag in map(tags.get, _GEO_TAGS) if tag is not None)
            return (series.asarray() if pixels else series.shape), series.axes, geo
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path} does not exist or is not a file.") from None
    except InputError:
        raise
    except Exception as error:  # a damaged file makes tifffile and its codecs raise nearly anything
        raise InputError(f"{path}: unreadable or truncated TIFF ({error}). Download or copy the file again.") from error


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
    if not 0 < series.nbytes <= _MAX_BYTES:
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


def read_shape(path: str | Path, bands: int | None = len(BANDS)) -> tuple[int, int]:
    """Return height and width of a tile, or of a mask if `bands` is None, from the header alone.

    Raises:
        InputError: If the file is missing, damaged or has other bands.
    """
    path = Path(path)
    shape, axes, _ = _load(path, pixels=False)
    if bands is None:
        height, width = (n for n, axis in zip(shape, axes, strict=True) if axis in "YX")
        return height, width
    rows, columns, _ = _layout(path, axes, shape, bands)
    return shape[rows], shape[columns]


def detect_release(path: str | Path, image: np.ndarray) -> str:
    """Return the release a stored image (H, W, 7) is of: mmls_v1 by its name, else raw values tell the challenge from mmls_v2."""
    if "_patch_" in Path(path).stem:
        return "mmls_v1"
    # Canonical values end at 1 (a hair above, at most, after resampling); raw DEM, thermal and colour values go far beyond in every tile.
    values = image[np.isfinite(image) & (image > NO_DATA)]
    return "challenge" if values.size and np.abs(values).max() > 1.5 else "mmls_v2"


def fill_nearest(band: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return a band (H, W) whose invalid pixels have the value of the nearest valid one; 0 everywhere if none is valid."""
    if valid.all():
        return band
    if not valid.any():
        return np.zeros_like(band)
    nearest = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return band[tuple(nearest)]


def read_tile(path: str | Path, release: str = "auto") -> Tile:
    """Read an image tile.

    Contiguous, planar, multi-page and rows-as-pages layouts (mmls_v1) are read, with any compression that imagecodecs knows.

    Args:
        path: TIFF file with seven bands.
        release: Name of a release, or "auto" to detect it.

    Raises:
        InputError: If the file is missing, truncated, has another number of bands, or the release is unknown.
    """
    path = Path(path)
    if release != "auto" and release not in RELEASES:
        raise InputError(f"Unknown release {release!r}. Known:{listing(['auto', *RELEASES])}")
    stored, geo = _read(path, len(BANDS))
    stored = stored.astype(np.float32)
    valid = np.isfinite(stored) & (stored > NO_DATA)
    stored[~valid] = np.nan
    if (far := np.abs(stored[valid]).max(initial=0)) > _FAR_OUT:
        raise InputError(f"{path}: values up to {far:g}, which no band has. The file is damaged, or marks no-data in an unknown way.")
    found = detect_release(path, stored) if release == "auto" else release
    # Filled after the scaling: a band without any data is 0 in canonical values, as in the public copy, not 0 metres of height.
    bands = np.moveaxis(RELEASES[found].to_canonical(stored), -1, 0)
    filled = np.stack([fill_nearest(band, np.isfinite(band)) for band in bands], axis=-1)
    return Tile(filled, valid.all(-1), found, path, geo)


def read_mask(path: str | Path) -> np.ndarray:
    """Read a mask as uint8 (H, W) of {0, 1}.

    Args:
        path: TIFF file with one band of {0, 1} or {0, 255}, integer or float.

    Raises:
        InputError: If the file is missing, truncated, has several bands or other values.
    """
    mask, _ = _read(Path(path), None)
    values = np.unique(mask)
    if not (np.isin(values, (0, 1)).all() or np.isin(values, (0, 255)).all()):
        found = ", ".join(f"{value:g}" for value in values[:5])
        raise InputError(f"{path}: a mask holds 0 and 1 (or 0 and 255), found {found}{', …' if len(values) > 5 else ''}.")
    return (mask != 0).astype(np.uint8)


def write_raster(path: str | Path, band: np.ndarray, geo: tuple = ()) -> None:
    """Write one band (H, W) as a deflated TIFF, atomically, with the GeoTIFF tags of the tile it belongs to.

    Raises:
        RunError: If the file cannot be written.
    """
    with atomic(path) as temporary:
        tifffile.imwrite(
            temporary, band, photometric="minisblack", compression="zlib", metadata=None, extratags=[(*tag, True) for tag in geo]
        )
