"""Open georeferenced rasters, and describe their grids of pixels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError  # rasterio.errors does not have it
from rasterio.crs import CRS
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.warp import transform
from rasterio.windows import Window

from marsls_keras.errors import InputError, listing

NO_DATA = float(np.finfo(np.float32).min)
"""No-data value of the rasters that are written, as in the tiles of the challenge: the lowest float32."""

Dataset = Any
"""An open raster, `rasterio.io.DatasetReader`."""


@dataclass(frozen=True)
class RasterGrid:
    """Grid of pixels on the map: coordinate system, transformation, and size.

    Attributes:
        crs: The coordinate system.
        transform: From (column, row), counted from the outer corner of the first pixel, to map coordinates (x, y).
        height: Rows.
        width: Columns.

    Example:
        >>> grid = RasterGrid(CRS.from_epsg(32633), Affine(10, 0, 5000, 0, -10, 8000), 300, 200)
        >>> grid.pixel, grid.window(1, 2, 64, 64).transform.c
        ((10.0, 10.0), 5020.0)
    """

    crs: CRS
    transform: Affine
    height: int
    width: int

    @classmethod
    def of(cls, raster: Dataset) -> RasterGrid:
        """Return the grid of an open raster."""
        return cls(raster.crs, raster.transform, raster.height, raster.width)

    @property
    def pixel(self) -> tuple[float, float]:
        """Width and height of a pixel in map units."""
        a, b, _, d, e, _ = self.transform[:6]
        return math.hypot(a, d), math.hypot(b, e)

    @property
    def unit(self) -> str:
        """Unit of map coordinates."""
        return "degrees" if self.crs.is_geographic else {"metre": "m"}.get(self.crs.linear_units, self.crs.linear_units)

    @property
    def upright(self) -> bool:
        """Whether rows and columns run along the axes of the map, in whatever direction."""
        return bool(self.transform.b == self.transform.d == 0)

    def window(self, row: int, column: int, height: int, width: int) -> RasterGrid:
        """Return the part of the grid that begins at a pixel; it may reach beyond the grid."""
        a, b, _, d, e, _ = self.transform[:6]
        x, y = self.at(column, row)
        return RasterGrid(self.crs, Affine(a, b, x, d, e, y), height, width)

    def at(self, column: Any, row: Any) -> tuple[Any, Any]:
        """Return the map coordinates (x, y) of points in pixels, numbers or arrays."""
        a, b, c, d, e, f = self.transform[:6]
        return a * column + b * row + c, d * column + e * row + f

    def pixels(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return the pixels (column, row), with fractions, of points in map coordinates, numbers or arrays."""
        a, b, c, d, e, f = (~self.transform)[:6]
        return a * x + b * y + c, d * x + e * y + f

    def outline(self) -> list[tuple[float, float]]:
        """Return the four corners in map coordinates, in order around the grid."""
        ends = ((0, 0), (self.width, 0), (self.width, self.height), (0, self.height))
        return [self.at(*corner) for corner in ends]

    def same_as(self, other: RasterGrid) -> bool:
        """Return whether two grids have the same coordinate system, size and place, to a thousandth of a pixel."""
        if (self.height, self.width) != (other.height, other.width) or self.crs != other.crs:
            return False
        apart = np.subtract(self.outline(), other.outline())
        return bool(np.abs(apart).max() < 1e-3 * min(self.pixel))

    def to_text(self) -> str:
        """Return size, pixel and extent as text for messages."""
        xs, ys = zip(*self.outline(), strict=True)
        width, height = self.pixel
        return (
            f"{self.width} x {self.height} pixels of {width:.6g} x {height:.6g} {self.unit}, "
            f"x {min(xs):.9g} to {max(xs):.9g}, y {min(ys):.9g} to {max(ys):.9g}"
        )


def crs_name(crs: CRS) -> str:
    """Return the name of a coordinate system for messages.

    Example:
        >>> crs_name(CRS.from_string("IAU_2015:49900"))
        'Mars (2015) - Sphere / Ocentric'
    """
    return str(crs.to_dict(projjson=True).get("name", crs.to_string()))


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Report errors of GDAL while a raster is read as an `InputError` that names the file.

    Raises:
        InputError: If GDAL cannot read the file.

    Example:
        >>> with reading("missing.tif"):
        ...     rasterio.open("missing.tif")
        Traceback (most recent call last):
            ...
        marsls_keras.errors.InputError: missing.tif cannot be read: missing.tif: No such file or directory
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # the caller asks for the place
            yield
    except (RasterioError, CRSError, CPLE_BaseError) as error:
        # What a read failed of is GDAL's own message, one error further down.
        reason = error.__cause__ or error
        raise InputError(f"{path} cannot be read: {reason}") from error


_UNSAFE_DRIVERS = ("HDF5", "HDF5Image", "netCDF", "BAG", "KEA")
_UNSAFE_ENDINGS = (".h5", ".hdf5", ".he5", ".nc", ".bag", ".kea")


def open_dataset(path: str | Path) -> Dataset:
    """Open a raster with rasterio: a file in any format of GDAL, a VRT, or a URL; it need not have a place.

    Args:
        path: The file, or what GDAL takes in its place, such as https://…, s3://… or /vsizip/….

    Returns:
        A rasterio dataset, which the caller closes.

    Raises:
        InputError: If there is no such raster, it is a folder, it cannot be read, holds no bands, or is HDF5 or netCDF.

    Example:
        >>> open_dataset("none.tif")
        Traceback (most recent call last):
            ...
        marsls_keras.errors.InputError: There is no raster none.tif.
    """
    name = str(path)
    local = Path(name)
    if local.is_dir():
        raise InputError(
            f"{name} is a folder, expected one raster. "
            f"gdalbuildvrt mosaic.vrt {name}/*.tif makes one of the files in it, without copying them."
        )
    try:
        with reading(name):
            raster = rasterio.open(name)
    except InputError:
        if "://" not in name and not name.startswith("/vsi") and not local.exists():
            raise InputError(f"There is no raster {name}.") from None
        raise
    # A damaged file of these formats can end the process when GDAL reads its pixels.
    unsafe = [raster.driver] if raster.driver in _UNSAFE_DRIVERS else []
    unsafe += [file for file in raster.files if Path(file).suffix.lower() in _UNSAFE_ENDINGS]
    if unsafe:
        raster.close()
        raise InputError(
            f"{name} is HDF5 or netCDF ({unsafe[0]}), expected a raster such as GeoTIFF. "
            f"Convert it first: gdal_translate {name} raster.tif"
        )
    if raster.count == 0:
        parts = listing(list(raster.subdatasets), 5)
        raster.close()
        raise InputError(f"{name} holds no bands of its own. Name one of its parts:{parts}")
    return raster


def require_place(raster: Dataset) -> None:
    """Check that an open raster has a grid of pixels on the map.

    Raises:
        InputError: If it has no coordinate system or no transformation to map coordinates.

    Example:
        >>> require_place(open_dataset("dem.tif"))  # doctest: +SKIP
    """
    path = raster.name
    if raster.crs is not None and not raster.transform.is_identity:
        return
    control = "ground control points" if raster.gcps[0] else "rational polynomial coefficients" if raster.rpcs else ""
    if control:
        raise InputError(
            f"{path} is placed by {control}, which are no grid of pixels. gdalwarp {path} placed.tif makes one."
        )
    if raster.crs is None:
        raise InputError(
            f"{path} has no coordinate system, so nobody can tell where it lies and how large its landslides are. "
            f"Give it one: gdal_edit.py -a_srs IAU_2015:49910 {path} (or the one that its maker names)."
        )
    raise InputError(f"{path} has a coordinate system, but no place in it (no transformation of its pixels).")


def open_raster(path: str | Path) -> Dataset:
    """Open a raster that GDAL reads and that has a place on the map.

    Args:
        path: File, or what else GDAL opens, such as a VRT or an address.

    Raises:
        InputError: If it cannot be opened, or has no coordinate system or no transformation to map coordinates.

    Example:
        >>> open_raster("dem.tif").count  # doctest: +SKIP
        1
    """
    raster = open_dataset(path)
    try:
        require_place(raster)
    except InputError:
        raster.close()
        raise
    return raster


def read_band(raster: Dataset, band: int, rows: slice | None = None) -> np.ndarray:
    """Read a band in physical units: scale and offset of the file applied, NaN where it has no data.

    Args:
        raster: The open raster.
        band: Number of the band, from 1 on.
        rows: First row and end; all by default.

    Returns:
        float64 (H, W).

    Raises:
        InputError: If the file is damaged.

    Example:
        >>> read_band(open_raster("dem.tif"), 1).shape  # doctest: +SKIP
        (300, 400)
    """
    rows = rows or slice(0, raster.height)
    with reading(raster.name):
        stored = raster.read(band, window=Window(0, rows.start, raster.width, rows.stop - rows.start), masked=True)
    values = np.ma.filled(stored.astype(np.float64), np.nan)
    if raster.nodatavals[band - 1] is None:
        values[values <= NO_DATA] = np.nan
    return values * raster.scales[band - 1] + raster.offsets[band - 1]


def to_map(source: CRS, target: CRS, x: np.ndarray, y: np.ndarray, around: float = 0.0) -> tuple[np.ndarray, ...]:
    """Transform map coordinates to another coordinate system; longitudes are returned within 180° of `around`.

    Args:
        source: The coordinate system that they are in.
        target: The one that they are wanted in.
        x: float64 array, eastings or longitudes.
        y: Likewise, northings or latitudes.
        around: Longitude to be near to, if the target's coordinates are longitudes.

    Returns:
        x and y, float64; infinite where the target system does not reach.

    Raises:
        InputError: If there is no transformation, such as between two planets.

    Example:
        >>> mars = CRS.from_string("IAU_2015:49900")
        >>> x, _ = to_map(mars, mars, np.array([290.0]), np.array([-5.0]), around=-70.0)
        >>> x.tolist()
        [-70.0]
    """
    try:
        moved = transform(source, target, x.ravel(), y.ravel())
    except (RasterioError, CRSError, CPLE_BaseError) as error:
        raise InputError(
            f"nothing leads from {crs_name(source)} to {crs_name(target)}. Are both of the same planet?"
        ) from error
    east, north = (np.asarray(values, np.float64).reshape(x.shape) for values in moved)
    if target.is_geographic:
        with np.errstate(invalid="ignore"):
            east = east - 360 * np.round((east - around) / 360)
    return east, north
