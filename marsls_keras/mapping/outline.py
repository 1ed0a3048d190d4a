"""Distances between the outlines of polygons on a body."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import KDTree

from marsls_keras.mapping.geodesy import Body

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

_SAMPLE = 4096
"""Points of an outline whose distances are averaged, at most; so many give the mean to about a hundredth."""


class Outline:
    """Outline of a polygon with its holes, as points in space from which distances are measured.

    Distances are straight lines between points of the ellipsoid. Over 100 km on Mars they are 4 m shorter than on the
    ground.

    Args:
        body: The body, with the coordinate system of the shape.
        shape: Polygon or multipolygon.
        spacing: Largest distance between points, in units of the coordinate system.

    Attributes:
        sample: Points spread evenly over the outline, float64 (n, 3), in metres from the body's centre.

    Example:
        >>> from shapely import box
        >>> body = Body("+proj=eqc +R=3396190 +units=m +no_defs")
        >>> outline = Outline(body, box(0, 0, 1000, 1000), spacing=100)
        >>> shifted = Outline(body, box(-200, -200, 1200, 1200), spacing=100)
        >>> outline.distance(shifted.sample).min().round()
        np.float64(200.0)
    """

    def __init__(self, body: Body, shape: BaseGeometry, spacing: float):
        import shapely

        rings = shapely.segmentize(shapely.get_rings(shapely.get_parts(shape)), spacing)
        ends, ring = shapely.get_coordinates(rings, return_index=True)
        last = np.append(ring[1:] != ring[:-1], True)  # which is also the first of its ring
        ring = ring[~last]
        self._points = body.space(ends[~last])
        number, first = np.arange(len(ring)), np.append(True, ring[1:] != ring[:-1])
        start = number[first]
        stop = np.append(start[1:], len(ring)) - 1
        self._before, self._after = number - 1, number + 1
        self._before[start], self._after[stop] = stop, start
        self._tree = KDTree(self._points)
        self.sample = self._points[:: -(-len(number) // _SAMPLE)]

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Return the distances of points from the outline in metres.

        Args:
            points: float64 (n, 3), in metres from the body's centre.

        Returns:
            float64 (n,).
        """
        # The nearest point of the outline is on an edge that ends at the nearest of its points, or close enough.
        nearest = self._tree.query(points)[1]
        ends = self._points[nearest]
        return np.minimum(
            *(_from_edge(points, ends, self._points[next_to[nearest]]) for next_to in (self._before, self._after))
        )


def _from_edge(points: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Return the distance of each point from its edge, float64 (n,)."""
    along, offset = stop - start, points - start
    length = np.maximum((along**2).sum(1), np.finfo(float).tiny)
    share = np.clip((offset * along).sum(1) / length, 0, 1)
    return np.asarray(np.linalg.norm(offset - share[:, None] * along, axis=1))
