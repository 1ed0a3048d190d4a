"""Areas and lengths of polygons on the ellipsoid of the body that a coordinate system describes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from marsls_keras.errors import InputError

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

MAX_EDGE = 8
"""Length in pixels to which straight edges are divided before they are projected: a parallel is no geodesic."""


class Body:
    """Measure polygons of a coordinate system on its own ellipsoid, in kilometres.

    Works for projected and geographic systems, for any body, also for systems without an EPSG code. Shapes may cross
    the antimeridian or enclose a pole.

    Args:
        crs: Coordinate system as WKT, PROJ string or "AUTHORITY:code".
        edge: Length in the system's units to which straight edges are divided; 0 for not at all.

    Attributes:
        crs: The coordinate system, of pyproj.
        edge: As given.
        radius: Equatorial radius of the body in metres.

    Raises:
        InputError: If the coordinate system is unknown, or is not of a body, such as a local one.

    Example:
        >>> from shapely import box
        >>> mars = Body("+proj=longlat +R=3396190 +no_defs", edge=0.1)
        >>> degree = box(0, 0, 1, 1)
        >>> round(mars.area(degree)), round(mars.perimeter(degree))
        (3513, 237)
    """

    def __init__(self, crs: str, edge: float = 0.0):
        from pyproj import CRS, Transformer
        from pyproj.exceptions import CRSError

        try:
            found = CRS.from_user_input(crs)
        except CRSError as error:
            raise InputError(f"The coordinate system is not understood: {error}") from None
        geod, geographic = found.get_geod(), found.geodetic_crs
        if geod is None or geographic is None:
            raise InputError(
                f"The coordinate system {found.name!r} is local: it does not lie on a body, so that areas in km² are "
                "unknown. Give the raster the system that it lies in (gdal_edit.py -a_srs)."
            )
        self.crs, self.edge, self.radius = found, edge, float(geod.a)
        self._geod = geod
        self._to_degrees = Transformer.from_crs(found, geographic, always_xy=True).transform

    def area(self, shape: BaseGeometry) -> float:
        """Return the area of a polygon or multipolygon in km²."""
        return sum(
            abs(self._ring(part.exterior)[0]) - sum(abs(self._ring(hole)[0]) for hole in part.interiors)
            for part in self._parts(shape)
        )

    def perimeter(self, shape: BaseGeometry) -> float:
        """Return the length of all outlines of a polygon or multipolygon in km, those of holes included."""
        return sum(self._ring(ring)[1] for part in self._parts(shape) for ring in (part.exterior, *part.interiors))

    def extent(self, shape: BaseGeometry) -> tuple[float, float]:
        """Return length and width in km: the sides of the smallest rectangle, of any direction, around a polygon."""
        import shapely

        corners = shapely.oriented_envelope(self.plane(shape)(shape))
        if corners.geom_type != "Polygon":  # a shape without area
            return corners.length / 1000, 0.0
        x, y = np.asarray(corners.exterior.coords)[:3].T
        sides = np.hypot(np.diff(x), np.diff(y)) / 1000
        return float(sides.max()), float(sides.min())

    def plane(self, around: BaseGeometry) -> Callable[[BaseGeometry], BaseGeometry]:
        """Return a projection of shapes to metres, azimuthal equidistant about the centroid of a shape.

        Distances from the centre are exact, and others close to it nearly so.
        """
        import shapely

        middle = shapely.centroid(around)
        lon0, lat0 = self._to_degrees(middle.x, middle.y)

        def metres(points: np.ndarray) -> np.ndarray:
            lon, lat = self._to_degrees(points[:, 0], points[:, 1])
            azimuth, _, distance = self._geod.inv(np.full_like(lon, lon0), np.full_like(lat, lat0), lon, lat)
            return np.stack([distance * np.sin(np.radians(azimuth)), distance * np.cos(np.radians(azimuth))], 1)

        return lambda shape: shapely.transform(shape, metres)

    def space(self, points: np.ndarray) -> np.ndarray:
        """Return points of the coordinate system, (n, 2), in metres from the body's centre, float64 (n, 3)."""
        lon, lat = np.radians(self._to_degrees(points[:, 0], points[:, 1]))
        flat = self._geod.es
        normal = self.radius / np.sqrt(1 - flat * np.sin(lat) ** 2)
        across = normal * np.cos(lat)
        return np.stack([across * np.cos(lon), across * np.sin(lon), normal * (1 - flat) * np.sin(lat)], 1)

    def degrees(self, shape: BaseGeometry) -> BaseGeometry:
        """Return a shape in longitude and latitude, with divided edges."""
        import shapely

        shape = shapely.segmentize(shape, self.edge) if self.edge else shape
        return shapely.transform(shape, lambda points: np.stack(self._to_degrees(points[:, 0], points[:, 1]), 1))

    def _parts(self, shape: BaseGeometry) -> list[BaseGeometry]:
        """Return the polygons of a shape in longitude and latitude."""
        import shapely

        return list(shapely.get_parts(self.degrees(shape)))

    def _ring(self, ring: BaseGeometry) -> tuple[float, float]:
        """Return signed area in km² and length in km of a ring in longitude and latitude."""
        lon, lat = np.asarray(ring.coords).T[:2]
        area, length = self._geod.polygon_area_perimeter(lon, lat)
        return area / 1e6, length / 1e3
