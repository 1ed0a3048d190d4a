"""Read and compare georeferencing of tiles: GeoTIFF tags (OGC 19-008r4) or a world file beside the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from marsls_keras.errors import InputError, listing

GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737, 50844)
"""Tag codes of pixel scale, tie points, transformation, the three GeoKey tags, and rational polynomial coefficients."""

_TOLERANCE = 0.05
"""Tolerance of positions in pixels: world files are rounded, but an error of half a pixel must be found."""

_SCALE, _TIES, _MATRIX, _KEYS, _NUMBERS, _TEXTS, _RPC = GEO_TAGS
_MODEL, _RASTER = 1024, 1025
_CITATIONS = (1026, 2049, 3073, 4097)
_KEY_NAMES = {
    _MODEL: "kind of coordinates",
    2048: "EPSG code",
    3072: "EPSG code",
    2057: "semi-major axis",
    3075: "projection method",
}
_UNITS = {9001: "m", 9002: "ft", 9003: "US ft", 9036: "km"}
_PIXEL_IS_POINT = 2
_DOUBLE = 12

Tags = tuple[tuple[int, int, int, Any], ...]
"""GeoTIFF tags as (code, dtype, count, value)."""


@dataclass(frozen=True)
class Georeference:
    """Coordinate system of an image and the transformation from its pixels to map coordinates.

    Attributes:
        crs: The coordinate system: its GeoKeys and their values, sorted, without names; empty if the file has none.
        affine: (a, b, c, d, e, f), such that the point (column, row), counted from the upper left corner of the upper
            left pixel, is at x = a column + b row + c and y = d column + e row + f; None if the file has no affine
            transformation.
        control: What else relates pixels to the map: "ground control points", "rational polynomial coefficients", or ""
            for nothing.

    Example:
        >>> Georeference(affine=(232.0, 0.0, 1000.0, 0.0, -232.0, 5000.0)).at(1, 2)
        (1232.0, 4536.0)
    """

    crs: tuple[tuple[int, Any], ...] = ()
    affine: tuple[float, ...] | None = None
    control: str = ""

    @property
    def unit(self) -> str:
        """Unit of map coordinates."""
        keys = dict(self.crs)
        return "degrees" if keys.get(_MODEL) == 2 else _UNITS.get(keys.get(3076, 0), "map units")

    def at(self, column: float, row: float) -> tuple[float, float]:
        """Return the map coordinates (x, y) of a point in pixels; `affine` must not be None."""
        a, b, c, d, e, f = self.affine or ()
        return a * column + b * row + c, d * column + e * row + f

    def box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return the bounding box (left, bottom, right, top) of an image on the map; `affine` must not be None."""
        xs, ys = zip(*(self.at(column, row) for column in (0, width) for row in (0, height)), strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def pixel(self) -> tuple[float, float]:
        """Return width and height of a pixel in map units; `affine` must not be None."""
        a, b, _, d, e, _ = self.affine or ()
        return math.hypot(a, d), math.hypot(b, e)

    def axes(self) -> str:
        """Return the orientation of the image on the map: "north-up", "south-up", "mirrored" or "rotated"."""
        a, b, _, d, e, _ = self.affine or ()
        if abs(b) > 1e-6 * abs(e) or abs(d) > 1e-6 * abs(a):
            return "rotated"
        return "mirrored" if a < 0 else "south-up" if e > 0 else "north-up"


def georeference(tags: Tags) -> Georeference:
    """Return the georeference that GeoTIFF tags describe; tags that contradict the standard are ignored.

    Example:
        >>> scale, tie = (33550, 12, 3, (10.0, 10.0, 0.0)), (33922, 12, 6, (0.0, 0.0, 0.0, 500.0, 800.0, 0.0))
        >>> georeference((scale, tie)).affine
        (10.0, 0.0, 500.0, 0.0, -10.0, 800.0)
    """
    values = {code: value for code, _, _, value in tags}
    keys = _geo_keys(values)
    crs = tuple(
        (key, value)
        for key, value in sorted(keys.items())
        if key != _RASTER
        and (key not in _CITATIONS or str(value).startswith("ESRI PE String"))  # a definition, not a name
    )
    scale, ties, matrix = (_numbers(values.get(code)) for code in (_SCALE, _TIES, _MATRIX))
    affine: tuple[float, ...] | None = None
    if len(scale) >= 2 and len(ties) >= 6 and scale[0] and scale[1]:
        width, height = scale[0], abs(scale[1])  # signs as in GDAL
        affine = (width, 0.0, ties[3] - ties[0] * width, 0.0, -height, ties[4] + ties[1] * height)
    elif len(matrix) == 16:
        affine = tuple(matrix[i] for i in (0, 1, 3, 4, 5, 7))
    if affine is not None:
        a, b, c, d, e, f = affine
        if keys.get(_RASTER) == _PIXEL_IS_POINT:  # tie points are centres of pixels
            affine = (a, b, c - (a + b) / 2, d, e, f - (d + e) / 2)
        if not all(map(math.isfinite, affine)) or a * e == b * d:
            affine = None
    control = ""
    if affine is None:
        control = (
            "ground control points" if len(ties) >= 6 else "rational polynomial coefficients" if _RPC in values else ""
        )
    return Georeference(crs, affine, control)


def _numbers(value: Any) -> list[float]:
    """Return the numbers in a tag's value as a flat list; empty for None."""
    return [float(v) for v in np.ravel(value).tolist() if isinstance(v, int | float)] if value is not None else []


def _geo_keys(values: dict[int, Any]) -> dict[int, Any]:
    """Return the values of the GeoKeys in GeoTIFF tags, by key number."""
    entries = [int(v) for v in _numbers(values.get(_KEYS))]
    numbers, texts = _numbers(values.get(_NUMBERS)), values.get(_TEXTS)
    texts = texts if isinstance(texts, str) else ""
    found: dict[int, Any] = {}
    for i in range(4, len(entries) - 3, 4):
        key, place, count, value = entries[i : i + 4]
        if place == 0:
            found[key] = value
        elif place == _NUMBERS and value + count <= len(numbers):
            found[key] = numbers[value] if count == 1 else tuple(numbers[value : value + count])
        elif place == _TEXTS:
            found[key] = texts[value : value + count].rstrip("|\0")
    return found


# ----------------------------------------------------------------------------------------------------------- files


def file_tags(path: Path) -> Tags:
    """Return the GeoTIFF tags from a file's header, or those equivalent to the world file beside it.

    The result is empty if the file has neither, or is damaged.

    Example:
        >>> file_tags(Path("train/images/col00001_row00007.tif"))[0]  # doctest: +SKIP
        (33550, 12, 3, (232.0, 232.0, 0.0))
    """
    tags: Tags = ()
    if path.suffix.lower() in (".tif", ".tiff"):
        try:
            with tifffile.TiffFile(path) as tif:
                found = map(tif.pages.first.tags.get, GEO_TAGS)
                tags = tuple((tag.code, int(tag.dtype), tag.count, tag.value) for tag in found if tag is not None)
        except Exception:  # the reader of the pixels reports what is wrong
            return ()
    return with_world_file(path, tags)


def world_file(path: Path) -> Path | None:
    """Return the path of an image's world file, such as x.tfw, x.tifw or x.wld of x.tif; None if there is none.

    Example:
        >>> world_file(Path("nowhere/tile.tif")) is None
        True
    """
    ending = path.suffix[1:]
    names = dict.fromkeys(
        name for end in (f"{ending[:1]}{ending[-1:]}w", f"{ending}w", "wld") for name in (end.lower(), end.upper())
    )
    return next((file for name in names if (file := path.with_suffix(f".{name}")).is_file()), None)


def with_world_file(path: Path, tags: Tags) -> Tags:
    """Return the tags of an image; if they do not place its pixels, add tags equivalent to its world file.

    Raises:
        InputError: If the world file is invalid.

    Example:
        >>> with_world_file(Path("nowhere/tile.tif"), ())
        ()
    """
    known = georeference(tags)
    if known.affine is not None or known.control or (world := world_file(path)) is None:
        return tags
    try:
        a, d, b, e, x, y = (
            float(word.replace(",", ".")) for word in world.read_text(encoding="ascii", errors="replace").split()
        )
    except (ValueError, OSError):
        a = math.nan
    if not math.isfinite(a) or not all(map(math.isfinite, (b, d, e, x, y))) or a * e == b * d:
        raise InputError(f"{world}: a world file holds six numbers, one a line. Mend it, or remove it.")
    # A world file gives the centre of the first pixel, tags give its corner, unless they say otherwise.
    point = _geo_keys({code: value for code, _, _, value in tags}).get(_RASTER) == _PIXEL_IS_POINT
    c, f = (x, y) if point else (x - (a + b) / 2, y - (d + e) / 2)
    kept = tuple(tag for tag in tags if tag[0] not in (_SCALE, _TIES, _MATRIX))
    if b == d == 0 and a > 0 > e:
        return ((_SCALE, _DOUBLE, 3, (a, -e, 0.0)), (_TIES, _DOUBLE, 6, (0.0, 0.0, 0.0, c, f, 0.0)), *kept)
    return ((_MATRIX, _DOUBLE, 16, (a, b, 0.0, c, d, e, 0.0, f, *[0.0] * 7, 1.0)), *kept)


# ------------------------------------------------------------------------------------------------------ comparison


def crs_difference(one: Georeference, other: Georeference) -> str:
    """Describe how the coordinate system of `one` differs from that of `other`; "" if no GeoKey that both have differs.

    Example:
        >>> crs_difference(Georeference(crs=((2048, 4326),)), Georeference(crs=((2048, 4326),)))
        ''
    """
    first, second = dict(one.crs), dict(other.crs)
    told = []
    for key in first.keys() & second.keys():
        a, b = first[key], second[key]
        alike = a == b or (
            isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
        )
        if not alike:
            told.append(
                (
                    key not in _KEY_NAMES,
                    key,
                    f"{_KEY_NAMES.get(key, f'GeoKey {key}')} {_shown(a)} instead of {_shown(b)}",
                )
            )
    return ", ".join(text for *_, text in sorted(told)[:3])


def _shown(value: Any) -> str:
    return "user-defined" if value == 32767 else f"{value:.10g}" if isinstance(value, float) else str(value)


def difference(
    one: Georeference, other: Georeference, size: Sequence[int] | None = None, expected: Sequence[int] | None = None
) -> list[str]:
    """Describe the differences between two georeferences, in what both have; empty if they match.

    Args:
        one: Georeference to check, such as a mask's.
        other: Georeference to compare with, such as the image's.
        size: (height, width) of the first in pixels; with it, both have to cover the same ground. Without it, positions
            are not compared.
        expected: (height, width) of the other.

    Example:
        >>> place = Georeference(affine=(10.0, 0.0, 0.0, 0.0, -10.0, 0.0))
        >>> difference(place, place, (128, 128), (128, 128))
        []
    """
    found = []
    if crs := crs_difference(one, other):
        found.append(f"another coordinate system ({crs})")
    if one.affine is None or other.affine is None:
        return found
    if (axes := one.axes()) != (right := other.axes()):
        found.append(f"{axes} instead of {right}")
    (width, height), (w, h), unit = one.pixel(), other.pixel(), other.unit
    reach = max(size[:2]) if size else 10_000  # number of pixels over which a difference of pixel size adds up
    if max(abs(width / w - 1), abs(height / h - 1)) * reach > _TOLERANCE:
        found.append(f"pixels of {width:.6g} x {height:.6g} {unit} instead of {w:.6g} x {h:.6g}")
    if size is None or expected is None:
        return found
    if tuple(size) != tuple(expected):
        found.append(f"{size[0]} x {size[1]} pixels instead of {expected[0]} x {expected[1]}")
    if crs:  # coordinates in different systems cannot be compared
        return found
    (left, _, _, top), (west, _, _, north) = one.box(*size[:2]), other.box(*expected[:2])
    east, south = left - west, north - top
    if max(abs(east) / w, abs(south) / h) > _TOLERANCE:
        found.append(
            f"shifted by {east / w:.2f} pixels to the east and {south / h:.2f} to the south "
            f"({east:.6g} and {south:.6g} {unit})"
        )
    return found


def require_one_grid(files: Sequence[Path]) -> None:
    """Raise an error if tiles cannot be joined to one raster without resampling.

    Raises:
        InputError: If a tile has no georeferencing or no coordinate system, has ground control points only, is not
            north-up, or differs from the first tile in its coordinate system, pixel size or pixel grid; some tiles are
            named.

    Example:
        >>> require_one_grid(sorted(Path("test/images").iterdir()))  # doctest: +SKIP
    """
    places = [georeference(file_tags(file)) for file in files]
    bare = [str(file) for file, place in zip(files, places, strict=True) if place == Georeference()]
    if bare:
        raise InputError(f"{len(bare)} tiles have no georeferencing, so they cannot be joined:{listing(bare, 5)}")
    for file, place in zip(files, places, strict=True):
        if trouble := _off_grid(place, places[0]):
            raise InputError(f"The tiles cannot be joined: {file} {trouble.format(first=files[0].name)}")


def _off_grid(place: Georeference, first: Georeference) -> str:
    """Describe why a tile is not on the pixel grid of the first one; "" if it is."""
    if place.control:
        return f"is placed by {place.control}, which tell no grid of pixels. Warp it to one first (gdalwarp)."
    if not place.crs:
        return "has no coordinate system. Give it the one that it lies in first (gdal_edit.py -a_srs)."
    if place.affine is None:
        return "has a coordinate system, but no place in it."
    if (axes := place.axes()) != "north-up":
        return f"is {axes}; expected north-up. Turn it first (gdalwarp)."
    if differs := difference(place, first):
        return f"has {' and '.join(differs)}, unlike {{first}}. Bring all tiles to one grid first (gdalwarp)."
    (w, h), (x, y), (west, north) = first.pixel(), place.at(0, 0), first.at(0, 0)
    east, south = (x - west) / w, (north - y) / h
    beside = east - round(east), south - round(south)
    if max(map(abs, beside)) > _TOLERANCE:
        shift = f"{beside[0]:.2f} pixels to the east and {beside[1]:.2f} to the south"
        units = f"{beside[0] * w:.6g} and {beside[1] * h:.6g} {first.unit}"
        return f"lies {shift} ({units}) beside the grid of {{first}}. Bring all tiles to one grid first (gdalwarp)."
    return ""
