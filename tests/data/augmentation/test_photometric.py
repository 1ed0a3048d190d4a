"""Photometric augmentation compared with SciPy and NumPy: only colours change, other bands are bit-identical."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.augmentation import SEED, augment, batch, one
from scipy.ndimage import gaussian_filter1d

from marsls_keras.bands.names import BANDS
from marsls_keras.config import Augmentation
from marsls_keras.data.augmentation.photometric import ChannelDropout, Photometric, gaussian_blur

ALL = {"blur": {"probability": 1}, "light": {"probability": 1}, "noise": {"probability": 1}}
ORDERS = [
    BANDS,
    ("gray", "green", "dem", "red", "slope"),
    ("blue",),
    ("thermal", "red", "green"),
    ("red", "green", "blue"),
]


def colours(bands):
    return np.array([band in ("red", "green", "blue") for band in bands])


def bits(values):
    return np.asarray(values).view(np.int32)


@pytest.mark.parametrize("bands", ORDERS, ids=",".join)
def test_physical_bands_masks_and_weights_stay_as_they_are_to_the_bit(bands):
    tiles = batch(3, bands=len(bands))
    tiles[0][0, :4] = [0.0, -0.0] * (len(bands) // 2) + [1e30] * (len(bands) % 2)
    image, mask, weight = augment(tiles, bands=bands, units=np.full(len(bands), 7.0), **ALL)
    coloured = colours(bands)
    assert np.array_equal(bits(image[..., ~coloured]), bits(tiles[0][..., ~coloured]))
    assert (np.abs(image - tiles[0])[..., coloured].max((0, 1, 2)) > 0.5).all()
    assert np.array_equal(mask, tiles[1]) and np.array_equal(weight, tiles[2])


@pytest.mark.parametrize("bands", [("dem", "slope"), ("gray",), ("thermal", "gray", "dem")], ids=",".join)
def test_without_colours_photometry_is_left_out(bands):
    assert not Photometric(Augmentation(**ALL), bands, np.ones(len(bands))).active
    tiles = batch(2, bands=len(bands))
    assert all(np.array_equal(*pair) for pair in zip(augment(tiles, bands=bands, **ALL), tiles, strict=True))


@pytest.mark.parametrize("sigma,largest,reach", [(1.4, 1.4, 3), (0.8, 1.4, 3), (2.5, 4.0, 8)])
def test_blur_is_that_of_scipy(sigma, largest, reach):
    image = batch(1, 20, 12, 3)[0][0]
    blurred = gaussian_blur(tf.constant(image), tf.constant(sigma), largest).numpy()
    expected = image.astype(np.float64)
    for axis in (0, 1):
        expected = gaussian_filter1d(expected, sigma, axis=axis, mode="reflect", radius=reach)
    np.testing.assert_allclose(blurred, expected, atol=1e-5)


@pytest.mark.parametrize("bands", ORDERS, ids=",".join)
def test_only_colours_are_blurred_each_by_itself(bands):
    tile = batch(1, bands=len(bands))
    plan = (tf.constant(True), tf.constant(1.2), False, 1.0, 0.0, False, SEED)
    change = Photometric(Augmentation(blur={"probability": 1}), bands, np.ones(len(bands)))
    blurred = change(one(tile), plan, ())[0].numpy()
    for c, coloured in enumerate(colours(bands)):
        expected = gaussian_filter1d(
            gaussian_filter1d(tile[0][0, ..., c], 1.2, axis=0, radius=3), 1.2, axis=1, radius=3
        )
        np.testing.assert_allclose(blurred[..., c], expected if coloured else tile[0][0, ..., c], atol=1e-5)


def test_light_by_hand_in_the_units_of_tiles():
    bands, mean, std = ("red", "dem", "blue"), np.array([0.4, 0.5, 0.3]), np.array([0.1, 0.2, 0.05])
    canonical = np.random.default_rng(0).random((1, 6, 6, 3)).astype(np.float32)
    tile = (
        ((canonical - mean) / std).astype(np.float32),
        np.zeros((1, 6, 6, 1), np.float32),
        np.ones((1, 6, 6, 1), np.float32),
    )
    change = Photometric(Augmentation(light={"probability": 1}), bands, 1 / std)
    lit = (
        change(one(tile), (False, 1.0, tf.constant(True), tf.constant(1.1), tf.constant(-0.15), False, SEED), ())[
            0
        ].numpy()
        * std
        + mean
    )
    # Contrast about the band's mean, then 0.15 of the whole range darker.
    expected = (canonical[0] - mean) * 1.1 + mean - 0.15
    np.testing.assert_allclose(lit[..., [0, 2]], expected[..., [0, 2]], atol=1e-5)
    np.testing.assert_allclose(lit[..., 1], canonical[0, ..., 1], atol=1e-5)


def test_light_keeps_to_its_bounds_fills_them_and_is_one_for_all_colours():
    tiles = (
        np.zeros((2000, 2, 1, 7), np.float32),
        np.zeros((2000, 2, 1, 1), np.float32),
        np.ones((2000, 2, 1, 1), np.float32),
    )
    tiles[0][:, 1] = 1.0
    units = np.array([5.0, 2, 4, 1, 1, 1, 1])
    image = augment(tiles, units=units, light={"probability": 1, "brightness": 0.2, "contrast": 0.3})[0]
    offset, factor = image[:, 0, 0, :3] / units[:3], image[:, 1, 0, :3] - image[:, 0, 0, :3]
    assert np.ptp(offset, axis=1).max() < 1e-6 and np.ptp(factor, axis=1).max() < 1e-5
    for values, low, high in ((offset, -0.2, 0.2), (factor, 0.7, 1.3)):
        assert low - 1e-5 < values.min() < low + 0.01 and high - 0.01 < values.max() < high + 1e-5
    assert abs(np.corrcoef(offset[:, 0], factor[:, 0])[0, 1]) < 0.1


def test_noise_has_its_deviation_in_the_units_of_tiles_and_differs_everywhere():
    tiles = tuple(np.zeros((4, 64, 64, c), np.float32) for c in (7, 1, 1))
    units = np.array([5.0, 2, 4, 1, 1, 1, 1])
    noise = augment(tiles, units=units, noise={"probability": 1, "deviation": 0.03})[0]
    assert not noise[..., 3:].any()
    noise = noise[..., :3] / units[:3]
    # 16,384 numbers each: the standard error is 0.6 % of the standard deviation.
    np.testing.assert_allclose(noise.std((0, 1, 2)), 0.03, rtol=0.03)
    np.testing.assert_allclose(noise.mean((0, 1, 2)), 0, atol=0.001)
    tail = np.abs(noise) > 2 * 0.03
    assert tail.mean() == pytest.approx(0.0455, abs=0.005)
    flat = noise.transpose(0, 3, 1, 2).reshape(12, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(12)).max() < 0.08


def test_channel_dropout_loses_one_modality_at_a_time_each_as_often():
    tiles = batch(800, 2, 2)
    image, mask, weight = augment(tiles, channel_dropout=1)
    lost = (image == 0).all((1, 2))
    names, counts = np.unique(lost, axis=0, return_counts=True)
    expected = {(0, 1, 2), (3, 4), (5,), (6,)}
    assert {tuple(np.flatnonzero(row)) for row in names} == expected
    assert ((counts - 200) ** 2 / 200).sum() < 16.3  # chi-square with 3 degrees of freedom, once in a thousand
    kept = np.broadcast_to(~lost[:, None, None], image.shape)
    assert np.array_equal(image[kept], tiles[0][kept])
    assert np.array_equal(mask, tiles[1]) and np.array_equal(weight, tiles[2])


@pytest.mark.parametrize("bands,lost", [(("slope", "red"), {(0,), (1,)}), (("dem", "gray", "slope"), {(0, 2), (1,)})])
def test_channel_dropout_knows_the_bands_that_there_are(bands, lost):
    image = augment(batch(40, 2, 2, len(bands)), bands=bands, channel_dropout=1)[0]
    assert {tuple(np.flatnonzero(row)) for row in (image == 0).all((1, 2))} == lost


@pytest.mark.parametrize("bands", [("red", "green"), ("dem", "slope"), ("thermal",)])
def test_the_only_modality_is_kept(bands):
    assert not ChannelDropout(1.0, bands).active
    tiles = batch(4, bands=len(bands))
    assert np.array_equal(augment(tiles, bands=bands, channel_dropout=1)[0], tiles[0])
