"""Derived bands compared with formulas of analytic surfaces, and with brute force."""

import numpy as np
import pytest
from scipy import ndimage

from marsls_keras.bands.derived import DERIVED, LATE, VECTORS
from marsls_keras.data.derived.colours import COLOURS
from marsls_keras.data.derived.terrain import terrain_bands, topographic_position

PIXEL = 232.0
SIZE = 41
NORTH, EAST = (
    axis * PIXEL for axis in np.meshgrid(np.arange(SIZE)[::-1] - SIZE // 2, np.arange(SIZE) - SIZE // 2, indexing="ij")
)
INSIDE = (slice(1, -1), slice(1, -1))
TERRAIN = [name for name in DERIVED if DERIVED[name].sources == ("dem",) and name not in LATE]


def terrain(heights, *names):
    found = terrain_bands(heights, PIXEL, names)
    return [found[name][INSIDE] for name in names]


def test_every_derived_band_is_computed_somewhere_and_vectors_and_late_bands_are_among_them():
    assert {*COLOURS, *TERRAIN, *LATE} == set(DERIVED)
    assert set(terrain_bands(EAST, PIXEL, TERRAIN)) == set(TERRAIN)
    assert {name for rows, columns, _ in VECTORS for name in (rows, columns)} < set(DERIVED)
    assert {source for terms in LATE.values() for source in terms} < set(DERIVED)


@pytest.mark.parametrize("azimuth", [0, 45, 90, 200, 359])
def test_a_plane_faces_one_way_does_not_bend_and_has_one_normal(azimuth):
    angle, steepness = np.radians(azimuth), 0.3
    heights = -steepness * (EAST * np.sin(angle) + NORTH * np.cos(angle)) + 1234
    names = (
        "aspect_sin",
        "aspect_cos",
        "profile_curvature",
        "plan_curvature",
        "normal_columns",
        "normal_rows",
        "normal_up",
    )
    size = np.hypot(1, steepness)
    expected = (
        np.sin(angle),
        np.cos(angle),
        0,
        0,
        steepness * np.sin(angle) / size,
        -steepness * np.cos(angle) / size,
        1 / size,
    )
    for name, found, value in zip(names, terrain(heights, *names), expected, strict=True):
        np.testing.assert_allclose(found, value, atol=1e-9, err_msg=name)


def test_level_ground_has_no_direction():
    names = (
        "aspect_sin",
        "aspect_cos",
        "profile_curvature",
        "plan_curvature",
        "tpi_small",
        "roughness",
        "local_relief",
    )
    for name, found in zip(names, terrain(np.full((SIZE, SIZE), -5000.0), *names), strict=True):
        assert (found == 0).all(), name
    assert (terrain(np.zeros((SIZE, SIZE)), "normal_up")[0] == 1).all()


def test_a_paraboloid_has_the_curvatures_of_its_second_derivatives():
    a, b, c = 3e-5, -1e-5, 2e-5  # z = a x² + b y² + c x y: the fit is exact
    heights = a * EAST**2 + b * NORTH**2 + c * EAST * NORTH
    g, h = 2 * a * EAST + c * NORTH, 2 * b * NORTH + c * EAST
    squared = np.where(g**2 + h**2 > 0, g**2 + h**2, np.inf)
    profile, plan = terrain(heights, "profile_curvature", "plan_curvature")
    np.testing.assert_allclose(profile, (-2 * (a * g**2 + b * h**2 + c * g * h) / squared)[INSIDE], atol=1e-12)
    np.testing.assert_allclose(plan, (2 * (a * h**2 + b * g**2 - c * g * h) / squared)[INSIDE], atol=1e-12)


def test_on_a_dome_slopes_become_steeper_downhill_and_run_apart():
    profile, plan = terrain(-1e-5 * (EAST**2 + NORTH**2), "profile_curvature", "plan_curvature")
    away = np.hypot(EAST, NORTH)[INSIDE] > 0
    np.testing.assert_allclose(profile[away], 2e-5, rtol=1e-9)
    np.testing.assert_allclose(plan[away], -2e-5, rtol=1e-9)


def test_a_cone_faces_away_from_its_top_and_bends_only_across():
    radius = np.hypot(EAST, NORTH)
    sine, cosine, profile, plan = terrain(
        -0.4 * radius, "aspect_sin", "aspect_cos", "profile_curvature", "plan_curvature"
    )
    far = radius[INSIDE] > 8 * PIXEL  # near the top, differences over three pixels are not derivatives
    np.testing.assert_allclose(sine[far], (EAST / np.maximum(radius, 1))[INSIDE][far], atol=6e-3)
    np.testing.assert_allclose(cosine[far], (NORTH / np.maximum(radius, 1))[INSIDE][far], atol=6e-3)
    np.testing.assert_allclose(plan[far], (-0.4 / np.maximum(radius, 1))[INSIDE][far], rtol=0.02)
    assert np.abs(profile[far]).max() < 0.03 * np.abs(plan[far]).max()


@pytest.mark.parametrize("radius", [1, 4, 16])
def test_topographic_position_is_the_height_above_the_mean_of_the_disc(radius):
    heights = np.random.default_rng(radius).normal(2000, 300, (SIZE, SIZE))
    offset = np.arange(-radius, radius + 1)
    disc = offset[:, None] ** 2 + offset**2 <= radius**2
    disc[radius, radius] = False
    mean = ndimage.generic_filter(heights, np.mean, footprint=disc, mode="nearest")
    np.testing.assert_allclose(topographic_position(heights, radius), heights - mean, atol=1e-8)


def test_roughness_and_relief_are_the_spread_of_heights_around():
    heights = np.random.default_rng(0).normal(0, 100, (SIZE, SIZE))
    found = terrain_bands(heights, PIXEL, ["roughness", "local_relief"])
    for name, reach in (("roughness", 1), ("local_relief", 8)):
        padded = np.pad(heights, reach, mode="edge")
        views = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1,) * 2)
        np.testing.assert_array_equal(found[name], views.max((2, 3)) - views.min((2, 3)), err_msg=name)


def colours(seed=0, size=32):
    names = ("red", "green", "blue", "nir", "swir1", "swir2")
    return dict(zip(names, np.random.default_rng(seed).uniform(0.1, 0.9, (6, size, size)), strict=True))


def test_indices_and_gray_by_their_formulas():
    tile = colours()
    red, green, blue, nir, swir1, swir2 = tile.values()
    for name, expected in {
        "ndvi": (nir - red) / (nir + red),
        "ndmi": (nir - swir1) / (nir + swir1),
        "nbr": (nir - swir2) / (nir + swir2),
        "gray_rgb": (red + green + blue) / 3,
        "min_max_green": (green - green.min()) / (green.max() - green.min()),
    }.items():
        np.testing.assert_allclose(COLOURS[name](tile), expected, rtol=1e-12, err_msg=name)


def test_degenerate_colours_give_zeros():
    tile = {name: np.zeros((8, 8)) for name in colours()}
    for name, compute in COLOURS.items():
        assert (compute(tile) == 0).all(), name
    tile["nir"], tile["red"] = np.full((8, 8), 0.5), np.full((8, 8), -0.49)  # negative reflectances occur
    assert (COLOURS["ndvi"](tile) == 1).all()


def test_filters_and_gradients_of_gray():
    tile = colours(1)
    gray = (tile["red"] + tile["green"] + tile["blue"]) / 3
    padded = np.pad(gray, 5, mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, (11, 11))
    np.testing.assert_allclose(COLOURS["median_gray"](tile), np.median(views, (2, 3)), atol=1e-12)
    weights = np.exp(-(((np.arange(-5, 6)) / (10 / 6)) ** 2) / 2)
    weights = np.outer(weights, weights) / weights.sum() ** 2
    np.testing.assert_allclose(COLOURS["gaussian_gray"](tile), np.tensordot(views, weights, 2), atol=1e-12)
    np.testing.assert_allclose(COLOURS["gradient_rows"](tile)[1:-1], (gray[2:] - gray[:-2]) / 2, atol=1e-12)
    np.testing.assert_allclose(COLOURS["gradient_columns"](tile)[:, 1:-1], (gray[:, 2:] - gray[:, :-2]) / 2, atol=1e-12)


def test_canny_finds_the_outline_of_a_square_and_nothing_else():
    square = np.zeros((32, 32))
    square[8:24, 8:24] = 1
    edges = COLOURS["canny"]({"red": square, "green": square, "blue": square})
    assert set(np.unique(edges)) == {0.0, 1.0}
    distance = np.minimum(ndimage.distance_transform_edt(square), ndimage.distance_transform_edt(1 - square))
    outline = (ndimage.distance_transform_edt(square) == 1) | (ndimage.distance_transform_edt(1 - square) == 1)
    assert edges[~(outline | (distance > 0) & (ndimage.distance_transform_edt(1 - square) <= 1.5))].max() == 0
    assert edges.sum() >= 4 * 12
