"""Distances between outlines, against those of shapely in the plane."""

import numpy as np
import pytest
import shapely

from marsls_keras.mapping.geodesy import Body
from marsls_keras.mapping.outline import Outline

FLAT = "+proj=laea +lat_0=-12 +lon_0=290 +a=3396190 +b=3376200 +units=m +no_defs"
"""Around its centre distances are those of the ground."""


def blob(seed: int, x: float, y: float, radius: float) -> shapely.Polygon:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    length = radius * np.random.default_rng(seed).uniform(0.5, 1.5, 24)
    return shapely.Polygon(np.stack([x + length * np.cos(angle), y + length * np.sin(angle)], 1))


def test_distances_are_those_in_the_plane() -> None:
    holed = blob(1, 0, 0, 9000).difference(blob(2, 500, 0, 2000))
    shape = shapely.multipolygons([holed, blob(3, 30_000, 5000, 4000)])
    points = np.random.default_rng(4).uniform(-20_000, 40_000, (500, 2))
    body = Body(FLAT)
    found = Outline(body, shape, 100).distance(body.space(points))
    expected = shapely.distance(shapely.points(points), shapely.boundary(shape))
    assert found == pytest.approx(expected, rel=1e-3, abs=1)


def test_a_long_outline_is_sampled_evenly() -> None:
    body = Body(FLAT)
    line = Outline(body, shapely.box(-10_000, -10_000, 10_000, 10_000), 5)
    assert 2048 <= len(line.sample) <= 4096
    inner = Outline(body, shapely.box(-2000, -2000, 2000, 2000), 100)
    dense = shapely.points(shapely.get_coordinates(shapely.segmentize(shapely.box(-1e4, -1e4, 1e4, 1e4), 5)))
    expected = shapely.distance(dense, shapely.box(-2000, -2000, 2000, 2000)).mean()
    assert inner.distance(line.sample).mean() == pytest.approx(expected, rel=0.01)
