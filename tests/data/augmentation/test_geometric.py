"""Geometric augmentation compared with scipy.ndimage and NumPy."""

import math

import numpy as np
import pytest
import tensorflow as tf
from helpers.augmentation import SEED, batch, coded, mask_of, one, weight_of
from scipy.ndimage import affine_transform, map_coordinates

from marsls_keras.bands.names import BANDS
from marsls_keras.config import Augmentation
from marsls_keras.data.augmentation.geometric import Geometric, affine_matrix, crop_matrix, resample, smooth_field
from marsls_keras.data.augmentation.transform import fused

FUSED = fused(resample)


def look_up(tile, matrix, displacement=None):
    """Resample one tile as in a pipeline."""
    field = () if displacement is None else (tf.constant(displacement, tf.float32),)
    return tuple(v.numpy() for v in FUSED(*one(tile), tf.constant(matrix, tf.float32), *field))


def affine(height, width, scale=1.0, rotation=0.0, down=0.0, right=0.0):
    return affine_matrix(*(tf.constant([float(v)]) for v in (scale, rotation, down, right)), height, width)[0].numpy()


def crop(height, width, tall, wide, top, left):
    return crop_matrix(*(tf.constant([float(v)]) for v in (tall, wide, top, left)), height, width)[0].numpy()


@pytest.mark.parametrize("height,width", [(24, 24), (20, 28)])
@pytest.mark.parametrize(
    "scale,rotation,down,right", [(1.1, 0.3, 0.05, -0.05), (0.8, -2.9, -0.1, 0.02), (1.0, 0.7, 0.0, 0.0)]
)
def test_an_affine_change_is_that_of_scipy(height, width, scale, rotation, down, right):
    tile = batch(1, height, width)
    image, mask, weight = look_up(tile, affine(height, width, scale, rotation, down, right))
    # New position of a pixel: scaled about the centre, rotated counterclockwise (rows count downwards), then shifted.
    forward = scale * np.array([[np.cos(rotation), -np.sin(rotation)], [np.sin(rotation), np.cos(rotation)]])
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    back = np.linalg.inv(forward)
    offset = centre - back @ (centre + [down * height, right * width])
    for values, result, order in [
        *((tile[0][0, ..., c], image[..., c], 1) for c in range(7)),
        (tile[1][0, ..., 0], mask[..., 0], 0),
    ]:
        expected = affine_transform(values, back, offset, order=order, mode="reflect")
        different = np.abs(result - expected) > 1e-4
        # A pixel half-way between two others may be taken from either; there are none of these in the bands.
        assert different.mean() < (0.005 if order == 0 else 1e-9)
    assert set(np.unique(mask)) <= {0.0, 1.0} and set(np.unique(weight)) <= {0.5, 1.0}


def test_a_quarter_turn_a_shift_and_a_doubling_by_hand():
    tile = batch(1, 16, 16)

    def same(result, expected):
        return all(np.allclose(r, e, atol=1e-4) for r, e in zip(result, expected, strict=True))

    assert same(look_up(tile, affine(16, 16, rotation=math.pi / 2)), [np.rot90(v[0]) for v in tile])
    down = look_up(tile, affine(16, 16, down=3 / 16, right=-2 / 16))
    assert same([v[3:, :-2] for v in down], [v[0, :-3, 2:] for v in tile])
    # Pixels that leave on one side come back mirrored.
    assert same([v[:3, :-2] for v in down], [v[0, 2::-1, 2:] for v in tile])
    twice = look_up(tile, affine(16, 16, scale=2))
    assert np.array_equal(twice[1], tile[1][0, 4:12, 4:12].repeat(2, 0).repeat(2, 1))
    assert same(look_up(tile, affine(16, 16)), [v[0] for v in tile])


@pytest.mark.parametrize("scale", [0.13, 0.43])
def test_beyond_its_border_a_tile_is_mirrored_again_and_again(scale):
    tile = batch(1, 12, 12)
    image, mask, weight = look_up(tile, affine(12, 12, scale=scale))
    padded = [np.pad(v[0], ((60, 60), (60, 60), (0, 0)), mode="symmetric") for v in tile]
    centre = 5.5
    where = 60 + centre + (np.indices((12, 12)) - centre) / scale
    for values, result, order in ((padded[0][..., 0], image[..., 0], 1), (padded[1][..., 0], mask[..., 0], 0)):
        np.testing.assert_allclose(result, map_coordinates(values, where, order=order), atol=1e-4)
    assert set(np.unique(weight)) <= {0.5, 1.0}


def test_a_crop_fills_the_tile():
    tile = batch(1, 20, 28)
    tall, wide, top, left = 0.5, 0.75, 0.3, 0.2
    image, mask, _ = look_up(tile, crop(20, 28, tall, wide, top, left))
    rows = top * 20 + (np.arange(20) + 0.5) * tall - 0.5  # centres of twenty pixels, spread over ten
    columns = left * 28 + (np.arange(28) + 0.5) * wide - 0.5
    where = np.meshgrid(rows, columns, indexing="ij")
    for band in range(7):
        np.testing.assert_allclose(image[..., band], map_coordinates(tile[0][0, ..., band], where, order=1), atol=1e-4)
    expected = tile[1][0, np.floor(rows + 0.5).astype(int)][:, np.floor(columns + 0.5).astype(int)]
    assert np.array_equal(mask, expected)


def test_a_displacement_is_that_of_map_coordinates():
    tile, field = batch(1, 24, 24), smooth_field(24, 24, 2.0, 12.0, SEED).numpy()
    assert np.abs(field).max() > 1
    image, mask, weight = look_up(tile, np.eye(2, 3), field)
    where = np.indices((24, 24)) + field
    inside = ((where > 0) & (where < 23)).all(0)
    for band in range(7):
        expected = map_coordinates(tile[0][0, ..., band], where, order=1)
        np.testing.assert_allclose(image[inside][:, band], expected[inside], atol=1e-4)
    rows, columns = np.clip(np.floor(where + 0.5).astype(int), 0, 23)
    assert np.array_equal(mask[inside], tile[1][0, rows, columns][inside])
    assert np.array_equal(weight[inside], tile[2][0, rows, columns][inside])


def test_displacement_comes_before_crop_and_affine_change_when_a_pixel_is_looked_up():
    warp = Geometric(
        Augmentation(
            affine={"probability": 1}, crop={"probability": 1, "area": (0.5, 0.5)}, elastic={"probability": 1}
        ),
        BANDS,
    )
    _, matrix, _, seed = (part[0].numpy() for part in warp.draw(tf.constant(1), 32, 32, SEED))
    tile = coded(1, 32, 32)
    moved = warp(one(tile), (tf.constant(True), matrix, tf.constant(True), tf.constant(seed)), ())
    field = smooth_field(32, 32, 4.0, 32.0, tf.constant(seed)).numpy()
    rows, columns = np.indices((32, 32)) + field
    source = np.einsum("ij,jhw->ihw", matrix[:, :2], np.stack([rows, columns])) + matrix[:, 2, None, None]
    inside = ((source > 0) & (source < 31)).all(0)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(moved[0].numpy()[inside][:, 1:], source[:, inside].T, atol=1e-3)


@pytest.mark.parametrize("height,width", [(96, 96), (40, 64)])
def test_bands_masks_and_weights_move_together_whatever_is_drawn(height, width):
    tiles = coded(6, height, width)
    warp = Geometric(
        Augmentation(affine={"probability": 0.7}, crop={"probability": 0.7}, elastic={"probability": 0.7}), BANDS
    )
    plans = warp.draw(tf.constant(6), height, width, SEED)
    for i in range(6):
        image, mask, weight = (
            v.numpy() for v in warp(tuple(tf.constant(v[i]) for v in tiles), tuple(p[i] for p in plans), ())
        )
        # Bilinear interpolation of the row and column bands gives the exact source position.
        assert np.allclose(image[..., 0], i, atol=1e-5)
        place = image[..., 1:]
        sure = (np.abs(place % 1 - 0.5) > 1e-3).all(-1)
        row, column = np.floor(place + 0.5).astype(int)[sure].T
        assert sure.mean() > 0.95
        assert np.array_equal(mask[sure][:, 0], mask_of(i, row, column)) and np.array_equal(
            weight[sure][:, 0], weight_of(i, row, column)
        )
    assert not np.allclose(place, np.stack(np.indices((height, width)), -1))


def test_affine_changes_keep_to_their_bounds_and_fill_them():
    config = Augmentation(affine={"probability": 1, "shift": 0.1, "scale": (0.8, 1.25), "rotation": 30})
    drawn, matrix, displaced, _ = (
        part.numpy() for part in Geometric(config, BANDS).draw(tf.constant(4000), 50, 50, SEED)
    )
    assert drawn.all() and not displaced.any()
    scale = 1 / np.sqrt(np.linalg.det(matrix[:, :, :2]))
    turn = np.degrees(np.arctan2(matrix[:, 0, 1], matrix[:, 0, 0]))
    # The centre of the tile comes from the shifted position.
    centre = np.array([24.5, 24.5])
    shift = centre - np.linalg.solve(matrix[:, :, :2], (centre - matrix[:, :, 2])[..., None])[..., 0]
    for values, low, high in ((scale, 0.8, 1.25), (turn, -30, 30), (shift[:, 0], -5, 5), (shift[:, 1], -5, 5)):
        slack = (high - low) / 100
        assert low - 1e-3 <= values.min() < low + slack and high - slack < values.max() <= high + 1e-3
        assert abs(values.mean() - (low + high) / 2) < 3 * slack  # five standard errors of an even distribution
    assert np.abs(np.corrcoef([scale, turn, *shift.T]) - np.eye(4)).max() < 0.07


def test_crops_keep_to_their_area_and_stay_inside():
    config = Augmentation(crop={"probability": 1, "area": (0.3, 0.6), "aspect": (0.5, 2.0)})
    _, matrix, _, _ = (part.numpy() for part in Geometric(config, BANDS).draw(tf.constant(3000), 64, 64, SEED))
    tall, wide = matrix[:, 0, 0], matrix[:, 1, 1]
    first, last = matrix[:, :, 2], matrix[:, :, 2] + 63 * np.stack([tall, wide], -1)
    assert (first >= -0.5).all() and (last <= 63.5).all() and first.min() < 0.5 and last.max() > 62.5
    whole = (tall < 1) & (wide < 1)  # a crop that does not fit is cut to the tile
    area, aspect = (tall * wide)[whole], (wide / tall)
    assert 0.2999 < area.min() < 0.31 and 0.59 < area.max() < 0.6001 and whole.mean() > 0.8
    assert 0.49 < aspect.min() < 0.55 and 1.8 < aspect.max() < 2.01 and abs(np.log(aspect).mean()) < 0.04


@pytest.mark.parametrize("amplitude,distance", [(2.0, 12.0), (4.0, 24.0)])
def test_the_displacement_is_as_large_and_as_smooth_as_said(amplitude, distance):
    fields = np.stack([smooth_field(60, 60, amplitude, distance, tf.constant([1, i])).numpy() for i in range(300)])
    # 600 fields: the standard error of a pixel's standard deviation is 3 %, that of the mean over a field far less.
    assert fields.std(0).mean() == pytest.approx(amplitude, rel=0.03)
    assert fields.std((0, 1)).min() > 0.85 * amplitude and fields.std((0, 1)).max() < 1.15 * amplitude
    step = int(distance)
    for a, b in ((fields[..., :-step], fields[..., step:]), (fields[..., :-step, :], fields[..., step:, :])):
        assert (a * b).mean() / amplitude**2 == pytest.approx(math.exp(-1), abs=0.06)
    assert np.abs(np.diff(fields, axis=-1)).max() < amplitude
    assert np.abs((fields[:, 0] * fields[:, 1]).mean()) < 0.06 * amplitude**2


def test_the_largest_default_displacement_folds_nothing_over():
    # Neighbouring pixels never swap places.
    elastic = Augmentation().elastic
    for i in range(50):
        field = smooth_field(128, 128, elastic.amplitude, elastic.distance, tf.constant([2, i])).numpy()
        assert np.diff(field[0], axis=0).min() > -1 and np.diff(field[1], axis=1).min() > -1


def test_what_is_cropped_is_the_tile_already_scaled_and_turned():
    config = Augmentation(
        affine={"probability": 1, "rotation": 60}, crop={"probability": 1, "area": (0.3, 0.5), "aspect": (1.5, 2.0)}
    )
    matrix = Geometric(config, BANDS).draw(tf.constant(50), 64, 64, SEED)[1].numpy()[:, :, :2]
    # Rows and columns of the crop are perpendicular in the tile: the position in the crop is computed first, then
    # rotated.
    squares = np.swapaxes(matrix, 1, 2) @ matrix
    assert np.abs(squares[:, 0, 1]).max() < 1e-5 and np.abs((matrix @ np.swapaxes(matrix, 1, 2))[:, 0, 1]).max() > 0.1
