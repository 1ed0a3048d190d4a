"""Mosaic and CutMix compared with results computed in NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.augmentation import SEED, augment, batch, coded, mask_of, weight_of

from marsls_keras.data.augmentation.mixing import CutMix, Mosaic

BANDS3 = ("red", "green", "blue")


@pytest.mark.parametrize("height,width", [(8, 8), (6, 10)])
def test_each_pixel_of_a_mosaic_comes_from_the_right_place_of_the_right_tile(height, width):
    tiles = tuple(map(tf.constant, coded(5, height, width)))
    members = np.array([3, 0, 4, 1], np.int32)
    for top in range(height):
        for left in range(0, width, 3):
            plan = (tf.constant(True), tf.constant(members), tf.constant([top, left]))
            image, mask, weight = (v.numpy() for v in Mosaic(1)(tuple(v[3] for v in tiles), plan, tiles))
            # The square of four tiles from which the window is cut.
            square = np.vstack([np.hstack([tiles[0][a], tiles[0][b]]) for a, b in members.reshape(2, 2)])
            expected = square[top : top + height, left : left + width]
            assert np.array_equal(image, expected)
            assert np.array_equal(mask[..., 0], mask_of(*np.moveaxis(expected.astype(int), -1, 0)))
            assert np.array_equal(weight[..., 0], weight_of(*np.moveaxis(expected.astype(int), -1, 0)))


def test_mosaics_begin_anywhere_and_are_made_of_others():
    drawn, members, corner = (part.numpy() for part in Mosaic(1).draw(tf.constant(6), 8, 10, SEED))
    assert (
        drawn.all() and np.array_equal(members[:, 0], np.arange(6)) and (members[:, 1:] != np.arange(6)[:, None]).all()
    )
    _, members, corner = (part.numpy() for part in Mosaic(1).draw(tf.constant(5000), 8, 10, SEED))
    assert set(corner[:, 0]) == set(range(8)) and set(corner[:, 1]) == set(range(10))
    assert np.abs(np.bincount(corner[:, 0]) - 625).max() < 120  # five standard deviations
    assert members.min() == 0 and members.max() == 4999 and len(set(members[:, 1])) > 3000


def test_cutmix_pastes_the_landslides_of_the_partner_and_nothing_else():
    tiles = batch(3)
    _, partners = CutMix(1).draw(tf.constant(3), 16, 16, tf.random.experimental.stateless_fold_in(SEED, 1))
    image, mask, weight = augment(tiles, cutmix=1)
    for i, partner in enumerate(partners.numpy()):
        assert partner != i
        for row in range(16):
            for column in range(16):
                landslide = tiles[1][partner, row, column, 0] == 1
                source = partner if landslide else i
                assert np.array_equal(image[i, row, column], tiles[0][source, row, column])
                assert mask[i, row, column] == (1 if landslide else tiles[1][i, row, column, 0])
                assert weight[i, row, column] == tiles[2][source, row, column]


def test_a_partner_without_landslide_changes_nothing():
    tiles = batch(2)
    tiles[1][:] = 0
    assert all(np.array_equal(*pair) for pair in zip(augment(tiles, cutmix=1), tiles, strict=True))


def test_partners_are_drawn_evenly_from_the_others():
    counts = np.zeros((5, 5), int)
    for k in range(400):
        _, partners = CutMix(1).draw(tf.constant(5), 8, 8, tf.constant([0, k]))
        counts[np.arange(5), partners.numpy()] += 1
    assert not counts.diagonal().any()
    assert ((counts[~np.eye(5, dtype=bool)] - 100) ** 2 / 100).sum() < 37.7  # 15 degrees of freedom, once in a thousand


def test_a_landslide_is_pasted_into_a_mosaic_from_a_tile_as_it_was():
    tiles = coded(4, 8, 8)
    image, mask, _ = augment(tiles, bands=BANDS3, mosaic=1, cutmix=1)
    tile, row, column = np.moveaxis(image.astype(int), -1, 0)
    assert np.array_equal(mask[..., 0], mask_of(tile, row, column))
    _, partners = CutMix(1).draw(tf.constant(4), 8, 8, tf.random.experimental.stateless_fold_in(SEED, 1))
    for i, partner in enumerate(partners.numpy()):
        landslide = tiles[1][partner, ..., 0] == 1
        assert np.array_equal(image[i][landslide], tiles[0][partner][landslide])
        assert len(set(tile[i][~landslide].tolist())) > 1


def test_a_tile_alone_in_its_batch_is_its_own_partner():
    tiles = coded(1, 8, 8)
    assert all(np.array_equal(*pair) for pair in zip(augment(tiles, bands=BANDS3, cutmix=1), tiles, strict=True))
    image, mask, weight = augment(tiles, bands=BANDS3, mosaic=1)
    place = np.moveaxis(image[0].astype(int), -1, 0)
    assert np.array_equal(mask[0, ..., 0], mask_of(*place)) and np.array_equal(weight[0, ..., 0], weight_of(*place))
    assert sorted(map(tuple, place[1:].reshape(2, -1).T)) == sorted(np.ndindex(8, 8))  # rolled round: each pixel once
