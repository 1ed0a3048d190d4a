"""Read polygons of vector files, such as GeoPackages and shapefiles, and move them to other coordinate systems."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError

from marsls_keras.errors import InputError, listing
from marsls_keras.mapping.grid import to_map

_POLYGONS = (3, 6)  # shapely's type numbers of Polygon and MultiPolygon


@dataclass(frozen=True)
class Polygons:
    """Polygons of an inventory, in one coordinate system.

    Attributes:
        shapes: Valid polygons and multipolygons of shapely, an array of objects.
        crs: Their coordinate system.
        repaired: Number of polygons that were invalid, such as those that cross themselves, and were repaired.
        ignored: Number of features that are no polygons.

    Example:
        >>> read_polygons(Path("inventory.gpkg")).repaired  # doctest: +SKIP
        2
    """

    shapes: np.ndarray
    crs: CRS
    repaired: int = 0
    ignored: int = 0

    def reprojected(self, crs: CRS, around: float = 0.0) -> Polygons:
        """Return the polygons in another coordinate system.

        Args:
            crs: The coordinate system.
            around: Longitude that they shall be near to, if `crs` is geographic.

        Raises:
            InputError: If there is no transformation, or a polygon lies where `crs` does not reach.
        """
        moved = _moved(self.shapes, self.crs, crs, around)
        return Polygons(moved, crs, self.repaired, self.ignored)


def require_geo() -> None:
    """Check that the packages for polygons are installed.

    Raises:
        InputError: If they are not; the message says how to install them.

    Example:
        >>> require_geo()
    """
    if missing := [name for name in ("shapely", "pyogrio", "pyproj") if find_spec(name) is None]:
        raise InputError(f'Polygons need {", ".join(missing)}: pip install "marsls-keras[geo]"')


def read_polygons(path: str | Path, layer: str | None = None, empty: bool = False) -> Polygons:
    """Read the polygons of a vector file; invalid ones are repaired.

    Args:
        path: File that GDAL reads.
        layer: Name of the layer; by default the only one that holds polygons.
        empty: Whether a layer without any polygon is allowed.

    Raises:
        InputError: If the extra geo is not installed, the file cannot be read, has no coordinate system or no polygon,
            or has several layers of polygons and none is named.

    Example:
        >>> len(read_polygons("inventory.gpkg").shapes)  # doctest: +SKIP
        31
    """
    require_geo()
    import pyogrio
    import shapely
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        kinds = {str(name): str(kind) for name, kind in pyogrio.list_layers(path)}
        fitting = [name for name, kind in kinds.items() if "Polygon" in kind or kind in ("Unknown", "None")]
        fitting = [name for name in fitting if kinds[name] != "None"] or fitting
        if layer is None and len(fitting) > 1:
            raise InputError(f"{path} has several layers of polygons; say which with --layer:{listing(fitting)}")
        if layer is not None and layer not in kinds:
            raise InputError(f"{path} has no layer {layer}. It has:{listing(list(kinds))}")
        name = layer or (fitting or list(kinds))[0]
        meta, _, geometry, _ = pyogrio.raw.read(path, layer=name, columns=[], force_2d=True)
    except (DataSourceError, DataLayerError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if meta["crs"] is None:
        raise InputError(f"{path} has no coordinate system. Give it the one that it lies in (ogr2ogr -a_srs).")
    try:
        crs = CRS.from_user_input(meta["crs"])
    except CRSError as error:
        raise InputError(f"{path} has a coordinate system that cannot be read: {error}") from error
    shapes = shapely.from_wkb(geometry) if geometry is not None else np.empty(0, object)
    shapes = shapes[~shapely.is_missing(shapes) & ~shapely.is_empty(shapes)]
    polygons = shapes[np.isin(shapely.get_type_id(shapes), _POLYGONS)]
    if not len(polygons) and not empty:
        raise InputError(f"{path} holds no polygon in its layer {name}; found {len(shapes)} features of other kinds.")
    wrong = ~shapely.is_valid(polygons)
    polygons[wrong] = [_areal(shapely.make_valid(shape, method="structure")) for shape in polygons[wrong]]
    polygons = polygons[~shapely.is_empty(polygons)]
    return Polygons(polygons, crs, int(wrong.sum()), len(shapes) - len(wrong))


def _moved(shapes: np.ndarray, source: CRS, target: CRS, around: float = 0.0) -> np.ndarray:
    """Transform shapes to another coordinate system; long edges are bent as the projection bends them."""
    import shapely

    if source == target and not target.is_geographic:
        return shapes
    left, bottom, right, top = shapely.total_bounds(shapes)
    fine = shapely.segmentize(shapes, max(right - left, top - bottom, 1e-9) / 1000)
    moved = shapely.transform(
        fine, lambda points: np.stack(to_map(source, target, points[:, 0], points[:, 1], around), -1)
    )
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise InputError("Some polygons lie where the raster's coordinate system does not reach.")
    return moved


def _areal(shape: Any) -> Any:
    """Return what is polygon of a repaired shape; lines and points that were left of it are dropped."""
    import shapely

    parts = [part for part in shapely.get_parts(shape) if shapely.get_type_id(part) in _POLYGONS]
    return shape if shapely.get_type_id(shape) in _POLYGONS else shapely.union_all(parts)
