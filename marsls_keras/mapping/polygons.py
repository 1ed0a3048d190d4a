"""Outlines of the components of a raster, and layers of polygons in GeoPackages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from marsls_keras.errors import RunError

if TYPE_CHECKING:
    from rasterio.io import DatasetReader


def outlines(numbers: DatasetReader, count: int) -> np.ndarray:
    """Return the outline of each component of a raster, along the edges of its pixels.

    GDAL reads the raster line by line, so that it need not fit into memory; the outlines have to.

    Args:
        numbers: Raster of one band, int32: number of the 8-connected component of each pixel, 0 for none.
        count: Number of components, numbered from 1 on.

    Returns:
        MultiPolygon in the raster's coordinate system, object (count,). Parts that touch at corners only are several
        polygons of one shape.

    Example:
        >>> outlines(rasterio.open("numbers.tif"), 12)[0].geom_type  # doctest: +SKIP
        'MultiPolygon'
    """
    import rasterio
    import shapely
    from rasterio.features import shapes
    from shapely.geometry import shape as as_shape

    band = rasterio.band(numbers, 1)
    parts: list[list[Any]] = [[] for _ in range(count)]
    # As a mask GDAL reads the numbers as bytes and clips them, so that every number but 0 counts.
    inside = band._replace(dtype="uint8")
    for shape, number in shapes(band, mask=inside, connectivity=8, transform=numbers.transform):
        if number > 0:
            parts[int(number) - 1].append(as_shape(shape))
    return np.array([multi(shapely.union_all(shapely.make_valid(found))) for found in parts], dtype=object)


def multi(shape: Any) -> Any:
    """Return the polygons of a shape as one MultiPolygon; lines and points of it, which have no area, are left out.

    Example:
        >>> import shapely
        >>> multi(shapely.box(0, 0, 1, 1)).geom_type
        'MultiPolygon'
    """
    import shapely

    parts = shapely.get_parts(shapely.get_parts(shape))
    return shapely.multipolygons([part for part in parts if part.geom_type == "Polygon"])


def simplified(shapes: np.ndarray, tolerance: float) -> np.ndarray:
    """Simplify polygons together, so that borders of neighbours stay common, and none come to overlap.

    Args:
        shapes: Polygons or multipolygons that do not overlap, object (N,).
        tolerance: Of Visvalingam and Whyatt's algorithm: a corner goes if its triangle is smaller than the
            square of it.

    Example:
        >>> import shapely
        >>> step = shapely.Polygon([(0, 0), (4, 0), (4, 3), (3, 3), (3, 4), (0, 4)])
        >>> shapely.get_num_coordinates(simplified(np.array([step]), 1.0))[0] < 7
        np.True_
    """
    import shapely

    if not len(shapes) or not tolerance:
        return shapes
    return np.array([multi(shape) for shape in shapely.coverage_simplify(shapes, tolerance)], dtype=object)


def write_layer(path: Path, layer: str, shapes: np.ndarray, crs: str, fields: Mapping[str, np.ndarray]) -> None:
    """Write a layer of multipolygons into a new GeoPackage.

    Args:
        path: File to write.
        layer: Name of the layer.
        shapes: MultiPolygon, object (N,).
        crs: Coordinate system as WKT.
        fields: Columns of attributes by name, (N,) each; NaN becomes NULL.

    Raises:
        RunError: If it cannot be written.

    Example:
        >>> import shapely
        >>> shapes = np.array([multi(shapely.box(0, 0, 1, 1))])
        >>> write_layer(Path("a.gpkg"), "landslides", shapes, "EPSG:4326", {"pixels": np.array([9])})
        >>> Path("a.gpkg").exists()
        True
    """
    import pyogrio.raw
    import shapely
    from pyogrio.errors import DataSourceError, FeatureError, GeometryError

    options = {"layer": layer, "driver": "GPKG", "geometry_type": "MultiPolygon", "crs": crs}
    columns = {"field_data": list(fields.values()), "fields": list(fields)}
    try:
        pyogrio.raw.write(path, geometry=shapely.to_wkb(shapes), **columns, **options)
    except (DataSourceError, FeatureError, GeometryError) as error:
        raise RunError(f"Could not write the polygons: {error}. Is the disk full?") from error
