"""Read image tiles and masks of any release, and convert images to canonical bands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy import ndimage

from marsls_keras.bands.names import RGB
from marsls_keras.data.formats import hdf5, png, tiff
from marsls_keras.data.formats.contents import Contents
from marsls_keras.data.formats.georeference import with_world_file
from marsls_keras.data.formats.no_data import fill_nearest
from marsls_keras.datasets import RELEASES, Release
from marsls_keras.datasets.release import StoredTile
from marsls_keras.errors import InputError, listing

NO_DATA = -1e30
"""Values below this are no-data: the challenge's tiles hold float32's minimum, -3.4028235e38."""


class Format(Protocol):
    """Interface of a module that reads one file format.

    Example:
        >>> FORMATS[".png"].read_mask.__name__
        'read_mask'
    """

    def read_image(self, path: Path, expected: Sequence[Contents], pixels: bool = True) -> tuple[np.ndarray, tuple]:
        """Return an image (H, W, bands) and its GeoTIFF tags; without `pixels` the array has a shape but no values."""

    def read_mask(self, path: Path, keys: Sequence[str]) -> np.ndarray:
        """Return the stored values of a mask (H, W); `keys` are possible names of its HDF5 dataset."""


FORMATS: dict[str, Format] = {".tif": tiff, ".tiff": tiff, ".h5": hdf5, ".png": png}
"""Reader module of each file extension."""


@dataclass(frozen=True)
class Tile:
    """One tile, in canonical bands.

    Attributes:
        image: float32 (H, W, C), canonical order and scale, no-data filled from the nearest valid pixel of the band.
        valid: bool (H, W), False where any band was no-data: below -1e30, NaN, infinite, or marked as no-data by the
            file or its release.
        release: Name of the file's release.
        path: The file.
        geo: GeoTIFF tags as (code, dtype, count, value), or those equivalent to the world file beside the image; empty
            if there is neither.

    Example:
        >>> tile = read_tile("train/images/col00001_row00007.tif")  # doctest: +SKIP
        >>> tile.image.shape, tile.release  # doctest: +SKIP
        ((128, 128, 7), 'mmls_v2')
    """

    image: np.ndarray
    valid: np.ndarray
    release: str
    path: Path
    geo: tuple[tuple[int, int, int, Any], ...]


def detect_release(path: str | Path, image: np.ndarray, kind: np.dtype | None = None) -> str:
    """Return the first release that matches a stored image's file extension and number of bands and accepts its values.

    The release of a data folder follows from its layout. This function decides only if several releases share a
    layout. A tile whose values do not identify a release gets that of most other tiles in the folder
    (`marsls_keras.data.decoded.load.examine`).

    Args:
        path: The file.
        image: Its values, (H, W, C); no-data is NaN or below `NO_DATA`.
        kind: Data type in the file, if it differs from the image's.

    Raises:
        InputError: If the values contradict the file name or match no release.

    Example:
        >>> detect_release("col00001_row00002.tif", np.full((32, 32, 7), 0.5, np.float32))
        'mmls_v2'
    """
    path = Path(path)
    values = np.where(np.isfinite(image) & (image > NO_DATA), image, np.nan)
    tile = StoredTile(path, values, kind or image.dtype)
    refusals = []
    for release in _releases(path):
        try:
            if len(release.order) == image.shape[2] and release.claims(tile):
                return release.name
        except InputError as error:  # another release may still match
            refusals.append(error)
    low, high = tile.span
    found = f"{path}: {image.shape[2]} bands of {tile.kind}, values from {low:g} to {high:g}, of no known release."
    raise refusals[0] if refusals else InputError(f"{found} Say which it is with --release.")


def _releases(path: Path) -> list[Release]:
    """Return the releases whose images have the extension of this file."""
    return [release for release in RELEASES.values() if path.suffix.lower() in release.layout.images]


def resample(array: np.ndarray, height: int, width: int, order: int) -> np.ndarray:
    """Resize an array (H, W, …) to another height and width, with the outer pixel edges aligned.

    Args:
        array: Pixels.
        height: New number of rows.
        width: New number of columns.
        order: 1 for bilinear interpolation without prior smoothing, 0 for nearest neighbour.

    Example:
        >>> resample(np.array([[0.0, 1.0]]), 1, 4, order=0)
        array([[0., 0., 1., 1.]])
    """
    if array.shape[:2] == (height, width):
        return array
    zoom = (height / array.shape[0], width / array.shape[1], *(1,) * (array.ndim - 2))
    return ndimage.zoom(array, zoom, order=order, mode="nearest", grid_mode=True)


def read_tile(path: str | Path, release: str = "auto") -> Tile:
    """Read an image tile and convert it to canonical bands.

    Args:
        path: File with an extension of `FORMATS`.
        release: Name of a release, or "auto" to detect it.

    Raises:
        InputError: If the file is missing or truncated, has an unexpected number of bands or impossible values, or the
            release is unknown.

    Example:
        >>> read_tile("train/images/col00001_row00007.tif").valid.mean()  # doctest: +SKIP
        np.float64(1.0)
    """
    with _memory(Path(path)):
        return _read_tile(Path(path), release)


def _read_tile(path: Path, release: str) -> Tile:
    """Read a tile as `read_tile` does; running out of memory raises MemoryError."""
    stored, geo = _stored(path, release, pixels=True)
    geo = with_world_file(path, geo)
    kind = stored.dtype
    known = ~np.ma.getmaskarray(stored)
    stored = np.ma.filled(stored, 0).astype(np.float32)
    valid = known & np.isfinite(stored) & (stored > NO_DATA)
    stored[~valid] = np.nan
    found = RELEASES[detect_release(path, stored, kind) if release == "auto" else release]
    if found.eight_bits and kind != np.uint8 and not _eight_bits(stored, valid):
        raise InputError(
            f"{path}: expected {'RGB' if found.bands == RGB else 'bands'} of 8 bits, found {kind}. "
            "Write it with 8 bits a band."
        )
    valid &= ~found.missing(stored)
    stored[~valid] = np.nan
    if (far := np.abs(stored[valid]).max(initial=0)) > found.limit:
        raise InputError(
            f"{path}: values up to {far:g}, which no band has. The file is damaged, or marks no-data in an unknown way."
        )
    # Filled after scaling, so that a band without any data is 0 in canonical values, as in the public copy, and not 0
    # metres of height.
    bands = np.moveaxis(found.to_canonical(stored), -1, 0)
    filled = np.stack([fill_nearest(band, np.isfinite(band)) for band in bands], axis=-1)
    return Tile(filled, valid.all(-1), found.name, path, geo)


def _eight_bits(stored: np.ndarray, valid: np.ndarray) -> bool:
    """Return whether an image (H, W, C) held 8-bit integers before the reader put NaN at no-data pixels."""
    values = stored[valid]
    return not valid.all() and bool(((values >= 0) & (values <= 255) & (values == np.round(values))).all())


def read_mask(path: str | Path) -> np.ndarray:
    """Read a mask as uint8 (H, W) of {0, 1}.

    Args:
        path: File with one band of {0, 1} or {0, 255}, integer or float.

    Raises:
        InputError: If the file is missing or truncated, or has several bands or other values.

    Example:
        >>> np.unique(read_mask("train/masks/col00001_row00007.tif"))  # doctest: +SKIP
        array([0, 1], dtype=uint8)
    """
    with _memory(Path(path)):
        mask = _format(Path(path)).read_mask(Path(path), [release.mask_key for release in RELEASES.values()])
        values = np.unique(mask)
    if not (np.isin(values, (0, 1)).all() or np.isin(values, (0, 255)).all()):
        found = ", ".join(f"{value:g}" for value in values[:5])
        raise InputError(
            f"{path}: a mask holds 0 and 1 (or 0 and 255), found {found}{', …' if len(values) > 5 else ''}."
        )
    return (mask != 0).astype(np.uint8)


@contextmanager
def _memory(path: Path) -> Iterator[None]:
    """Convert a MemoryError into an InputError that names the file.

    Raises:
        InputError: Instead of MemoryError.
    """
    try:
        yield
    except MemoryError:
        raise InputError(
            f"{path}: reading it takes more memory than there is. Is it a tile? Cut it, or free some memory."
        ) from None


def read_shape(path: str | Path, release: str = "auto") -> tuple[int, int, int]:
    """Return height, width and number of bands of a tile; only the header is read.

    Raises:
        InputError: If the file is missing or damaged, has an unexpected number of bands, or the release is unknown.

    Example:
        >>> read_shape("train/images/col00001_row00007.tif")  # doctest: +SKIP
        (128, 128, 7)
    """
    height, width, bands = _stored(Path(path), release, pixels=False)[0].shape
    return height, width, bands


def _stored(path: Path, release: str, pixels: bool) -> tuple[np.ndarray, tuple]:
    """Return the image as stored and its GeoTIFF tags, checked against what the release expects."""
    if release != "auto" and release not in RELEASES:
        raise InputError(f"Unknown release {release!r}. Known:{listing(['auto', *RELEASES])}")
    known = _releases(path) if release == "auto" else [RELEASES[release]]
    expected = [Contents(len(found.order), found.eight_bits, found.image_key) for found in known]
    return _format(path).read_image(path, list(dict.fromkeys(expected)), pixels)


def _format(path: Path) -> Format:
    """Return the reader module for a file's extension.

    Raises:
        InputError: If the extension is unknown.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: expected a file that ends in {', '.join(FORMATS)}.")
    return FORMATS[path.suffix.lower()]
