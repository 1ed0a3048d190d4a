"""Open a raster that GDAL reads, find its bands and release, and read windows of it in canonical bands."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from marsls_keras.data.formats.tile import NO_DATA
from marsls_keras.datasets import RELEASES, Release, known_bands
from marsls_keras.datasets.release import StoredTile
from marsls_keras.errors import InputError, listing
from marsls_keras.mapping.grid import open_dataset, require_place
from marsls_keras.suggestions import did_you_mean

_SAMPLES, _SAMPLE = 8, 32
"""A raster is told by `_SAMPLES` × `_SAMPLES` evenly spread windows of at most `_SAMPLE` × `_SAMPLE` pixels."""


class Box(NamedTuple):
    """Rectangle of pixels of a raster; it may reach beyond the raster.

    Attributes:
        top: First row.
        left: First column.
        height: Rows.
        width: Columns.

    Example:
        >>> Box(10, 20, 2, 3).grown(1)
        Box(top=9, left=19, height=4, width=5)
    """

    top: int
    left: int
    height: int
    width: int

    def grown(self, margin: int) -> Box:
        """Return the box with a margin of this many pixels on all sides."""
        return Box(self.top - margin, self.left - margin, self.height + 2 * margin, self.width + 2 * margin)


def boxes(height: int, width: int, side: int) -> Iterator[Box]:
    """Yield the boxes that divide a raster, in reading order; the last of each row and column may be smaller.

    Args:
        height: Rows of the raster.
        width: Columns of the raster.
        side: Rows and columns of a box.

    Example:
        >>> [tuple(box) for box in boxes(5, 4, 4)]
        [(0, 0, 4, 4), (4, 0, 1, 4)]
    """
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield Box(top, left, min(side, height - top), min(side, width - left))


@dataclass(frozen=True)
class Raster:
    """A raster whose bands are those of a release.

    A raster is a value: it holds no open file. Each thread opens the file for itself, since a handle of GDAL must not
    be used by two threads at once.

    Attributes:
        path: The file or URL.
        height: Rows.
        width: Columns.
        crs: Coordinate system, `rasterio.crs.CRS`; None if it has none.
        transform: `affine.Affine` from (column, row) to the map.
        release: Release that tells scale, order and no-data of the bands.
        indexes: Number of the band in the file, from 1 on, for each band of `release.order`.

    Example:
        >>> raster = Raster.open("valles.tif", family="mmls_v2")  # doctest: +SKIP
        >>> raster.read(Box(0, 0, 128, 128)).shape  # doctest: +SKIP
        (128, 128, 7)
    """

    path: str
    height: int
    width: int
    crs: Any
    transform: Any
    release: Release = field(repr=False)
    indexes: tuple[int, ...]
    _handles: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    @classmethod
    def open(cls, path: str | Path, release: str = "auto", family: str | None = None) -> Raster:
        """Open a raster, and tell its release and the order of its bands.

        Bands with descriptions are found by name, as `marsls stack` writes them, in any order and among others. Without
        descriptions they are taken in the order of the release.

        Args:
            path: File, VRT or URL.
            release: Name of a release, or "auto" to tell it by number, names and values of the bands.
            family: Family of releases that is expected, such as that of a trained run; None for any.

        Raises:
            InputError: If the raster cannot be read, has other bands than any release, or values that contradict it.
        """
        with open_dataset(path) as dataset:
            known = _candidates(release, family)
            found = {each.name: indexes for each in known if (indexes := _indexes(dataset, each)) is not None}
            if release == "auto" and family is None:
                # Three colours among the bands of Mars are not a raster of a dataset of three colours.
                named = set(_names(dataset).values()) & set(known_bands())
                found = {name: indexes for name, indexes in found.items() if named <= set(RELEASES[name].bands)}
            if not found:
                raise InputError(_wrong_bands(dataset, str(path), known))
            chosen = _chosen(dataset, str(path), [RELEASES[name] for name in found], release, family)
            if chosen.eight_bits and set(dataset.dtypes) != {"uint8"}:
                raise InputError(
                    f"{path}: {chosen.title} has bands of 8 bits, found {', '.join(sorted(set(dataset.dtypes)))}."
                )
            size = (dataset.height, dataset.width)
            return cls(str(path), *size, dataset.crs, dataset.transform, chosen, found[chosen.name])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without open files."""
        own = (self.path, self.height, self.width, self.crs, self.transform, self.release.name, self.indexes)
        return _restored, own

    @property
    def file_bands(self) -> list[str]:
        """Names of the bands in the order of the file, "" for those that the release does not have."""
        names = dict(zip(self.indexes, self.release.order, strict=True))
        return [names.get(i, "") for i in range(1, self.dataset.count + 1)]

    @property
    def dataset(self) -> Any:
        """The rasterio dataset of this thread, opened at its first use."""
        if not hasattr(self._handles, "dataset"):
            self._handles.dataset = open_dataset(self.path)
        return self._handles.dataset

    def require_place(self) -> None:
        """Check that the raster has a coordinate system and an affine transformation.

        Raises:
            InputError: If it has neither, or is placed by ground control points alone.
        """
        require_place(self.dataset)

    def read(self, box: Box) -> np.ndarray:
        """Read a box in canonical bands and scale.

        Args:
            box: Rectangle of pixels; it may reach beyond the raster.

        Returns:
            float32 (height, width, C), bands in the order of `release.bands`; NaN where a band has no data, and beyond
            the raster.

        Raises:
            InputError: If the file is truncated, or has values that no band has.
        """
        image = np.full((box.height, box.width, len(self.release.bands)), np.nan, np.float32)
        top, left = max(box.top, 0), max(box.left, 0)
        bottom, right = min(box.top + box.height, self.height), min(box.left + box.width, self.width)
        if top >= bottom or left >= right:
            return image
        stored = self.stored(Box(top, left, bottom - top, right - left))
        stored[self.release.missing(stored)] = np.nan
        if (far := np.abs(np.nan_to_num(stored)).max(initial=0)) > self.release.limit:
            raise InputError(
                f"{self.path}: values up to {far:g} in rows {top} to {bottom - 1}, columns {left} to {right - 1}, "
                "which no band has. The file is damaged, or marks no-data in an unknown way."
            )
        inside = (slice(top - box.top, bottom - box.top), slice(left - box.left, right - box.left))
        image[inside] = self.release.to_canonical(stored)
        return image

    def stored(self, box: Box) -> np.ndarray:
        """Read a box inside the raster in the order of `release.order`, scaled as the file says and not as the release.

        Returns:
            float32 (height, width, C); NaN where a band has no data.

        Raises:
            InputError: If the file is truncated.
        """
        return _stored(self.dataset, self.path, self.indexes, box)

    def digest(self) -> str:
        """Return a SHA-256 of size, place, bands and the pixels of 64 windows spread over the raster.

        Reading all pixels of a mosaic takes as long as mapping it, so a change between these windows is not seen. The
        path is left out: a copy elsewhere has the same digest.
        """
        dataset = self.dataset
        crs = "" if self.crs is None else self.crs.to_wkt()
        facts = (self.height, self.width, self.indexes, dataset.dtypes, tuple(self.transform)[:6], crs)
        found = hashlib.sha256(f"{self.release.name} {self.release.reading} {facts}".encode())
        for box in _sample_boxes(self.height, self.width):
            found.update(_stored(dataset, self.path, self.indexes, box).tobytes())
        return found.hexdigest()


def _restored(path: str, height: int, width: int, crs: Any, transform: Any, release: str, indexes: Any) -> Raster:
    return Raster(path, height, width, crs, transform, RELEASES[release], indexes)


def _candidates(release: str, family: str | None) -> list[Release]:
    """Return the releases that a raster may be of."""
    if release != "auto" and release not in RELEASES:
        raise InputError(f"Unknown release {release!r}. Known:{listing(['auto', *RELEASES])}")
    named = list(RELEASES.values()) if release == "auto" else [RELEASES[release]]
    fitting = [each for each in named if family is None or each.family == family]
    if not fitting:
        raise InputError(
            f"--release {release}: the run was trained on tiles of the family {family}, whose bands have other scales."
        )
    return fitting


def _indexes(dataset: Any, release: Release) -> tuple[int, ...] | None:
    """Return the number of each band of `release.order` in a file; None if the file lacks some.

    By descriptions if any of them is a band of the release, else by position.
    """
    names = _names(dataset)
    if any(name in release.bands for name in names.values()):
        at = {name: i for i, name in names.items()}
        each_once = all(list(names.values()).count(band) == 1 for band in release.order)
        return tuple(at[band] for band in release.order) if each_once else None
    return tuple(names) if len(names) == len(release.order) else None


def _names(dataset: Any) -> dict[int, str]:
    """Return the description of each band, in lower case and "" for none, without transparency, which is a mask."""
    from rasterio.enums import ColorInterp

    described = enumerate(zip(dataset.descriptions, dataset.colorinterp, strict=True), 1)
    return {i: (name or "").strip().lower() for i, (name, kind) in described if kind is not ColorInterp.alpha}


def _wrong_bands(dataset: Any, path: str, known: list[Release]) -> str:
    """Return the message about a raster that has the bands of no release."""
    names = list(_names(dataset).values())
    wanted = f"{known[0].title} has {len(known[0].order)}: {', '.join(known[0].order)}"
    if any(name in known[0].bands for name in names):
        lacking = [band for band in known[0].order if names.count(band) != 1]
        hint = did_you_mean(lacking[0], [name for name in names if name and name not in known[0].bands])
        return (
            f"{path}: its bands are named {', '.join(name or '(no name)' for name in names)}; "
            f"expected each of {', '.join(lacking)} once.{hint} {wanted}."
        )
    return (
        f"{path}: {len(names)} bands; {wanted}. marsls stack makes one raster of several; or name the bands with "
        "gdal_edit.py or rio edit-info, and further ones are left out."
    )


def _chosen(dataset: Any, path: str, fitting: list[Release], release: str, family: str | None) -> Release:
    """Return the release among those with fitting bands that accepts the sampled values.

    A mosaic has no name that tells its release, so where a run leaves only one, its values decide nothing.
    """
    if release != "auto" or (family is not None and len(fitting) == 1):
        return fitting[0]
    refusals = []
    for each in fitting:
        indexes = _indexes(dataset, each)
        assert indexes is not None, "only fitting releases are tried"
        parts = [_stored(dataset, path, indexes, box) for box in _sample_boxes(dataset.height, dataset.width)]
        values = np.concatenate([part.reshape(1, -1, len(indexes)) for part in parts], axis=1)
        values[each.missing(values)] = np.nan
        try:
            if each.claims(StoredTile(Path(path), values, np.dtype(dataset.dtypes[indexes[0] - 1]))):
                return each
        except InputError as error:  # another release may still match
            refusals.append(error)
    names = ", ".join(each.name for each in fitting)
    raise refusals[0] if refusals else InputError(f"{path}: values of none of {names}. Say which with --release.")


def _sample_boxes(height: int, width: int) -> list[Box]:
    """Return the boxes that a raster is told by, evenly spread from its first to its last pixel."""
    rows, columns = min(height, _SAMPLE), min(width, _SAMPLE)
    tops = np.unique(np.linspace(0, height - rows, _SAMPLES).astype(int))
    lefts = np.unique(np.linspace(0, width - columns, _SAMPLES).astype(int))
    return [Box(int(top), int(left), rows, columns) for top in tops for left in lefts]


def _stored(dataset: Any, path: str, indexes: tuple[int, ...], box: Box) -> np.ndarray:
    """Read stored values of a box inside a raster, scaled as the file says: float32 (H, W, bands), NaN for no data."""
    from rasterio.errors import RasterioError
    from rasterio.windows import Window

    window = Window(box.left, box.top, box.width, box.height)
    try:
        read = dataset.read(list(indexes), window=window, masked=True)
    except (RasterioError, OSError) as error:
        cause = error.__cause__ or error
        raise InputError(
            f"{path} cannot be read in rows {box.top} to {box.top + box.height - 1}, columns {box.left} to "
            f"{box.left + box.width - 1}: {cause}. It may be truncated: download or copy it again."
        ) from error
    scales, offsets = (
        np.array([per[i - 1] for i in indexes])[:, None, None] for per in (dataset.scales, dataset.offsets)
    )
    values = np.ma.filled(read.astype(np.float64 if read.dtype.kind != "f" else read.dtype), np.nan)
    if (scales != 1).any() or (offsets != 0).any():
        values = values * scales + offsets
    values = np.moveaxis(values.astype(np.float32), 0, -1)
    values[~np.isfinite(values) | (values <= NO_DATA)] = np.nan
    return values
