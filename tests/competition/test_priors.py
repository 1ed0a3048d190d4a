"""The two priors, by hand and against loops over tiles."""

from pathlib import Path

import numpy as np
from scipy.ndimage import label

from competition.priors import at_least, doubted, unpublished
from marsls_keras.data.refs import TileRef


def refs(*places: tuple[str, tuple[int, int] | None]) -> list[TileRef]:
    return [TileRef(f"t/{i}", Path(f"{i}.tif"), None, "t", raster, cell) for i, (raster, cell) in enumerate(places)]


def test_a_tile_with_too_little_landslide_gets_its_most_probable_pixels():
    probability = np.random.default_rng(0).random((5, 20, 30)).astype(np.float32)
    probability[1] *= 0.4
    probability[2] *= 0.51
    masks = probability >= 0.5
    before = masks.copy()
    found = at_least(masks, probability, 0.1)
    assert masks[1].sum() == 0 < masks[2].sum() < 60 and np.array_equal(masks, before)
    for i in (0, 3, 4):
        assert np.array_equal(found[i], masks[i])
    for i in (1, 2):
        assert np.array_equal(found[i], probability[i] >= np.sort(probability[i].ravel())[-60])
    assert np.array_equal(at_least(masks, probability, 0), masks)
    turned = at_least(masks.transpose(0, 2, 1), probability.transpose(0, 2, 1), 0.1)  # another order in memory
    assert np.array_equal(turned.sum((1, 2)), found.sum((1, 2)))


def test_equally_probable_pixels_are_not_all_taken():
    found = at_least(np.zeros((1, 10, 10)), np.zeros((1, 10, 10)), 0.05)
    assert found.sum() == 5 and found[0, 0, :5].all()
    assert at_least(np.zeros((0, 10, 10)), np.zeros((0, 10, 10)), 0.05).shape == (0, 10, 10)


def test_sides_beyond_which_no_tile_was_published():
    tiles = refs(("a", (4, 5)), ("a", (4, 6)), ("a", (5, 6)), ("b", (5, 5)), ("a", None), ("a", (90, 6)))
    expected = [  # above, below, left, right
        [True, True, True, False],
        [True, False, False, True],
        [False, True, True, True],
        [True, True, True, True],
        [False, False, False, False],
        [True, True, True, True],
    ]
    assert unpublished(tiles, 12, 16).tolist() == expected


def test_a_landslide_that_runs_off_has_to_be_more_probable():
    rng = np.random.default_rng(1)
    probability = rng.random((6, 16, 24)).astype(np.float32)
    masks = probability >= 0.6
    missing = rng.random((6, 4)) < 0.5
    expected = masks.copy()
    for mask, values, sides, kept in zip(masks, probability, missing, expected, strict=True):
        labels, number = label(mask, np.ones((3, 3)))
        for component in range(1, number + 1):
            y, x = np.nonzero(labels == component)
            touches = (y.min() == 0, y.max() == 15, x.min() == 0, x.max() == 23)
            if any(t and m for t, m in zip(touches, sides, strict=True)):
                kept[(labels == component) & (values < np.float32(0.8))] = False
    found = doubted(masks, probability, missing, 0.8)
    assert np.array_equal(found, expected) and 0 < expected.sum() < masks.sum()
    assert np.array_equal(doubted(masks, probability, missing, 0.6), masks)
    assert np.array_equal(doubted(masks, probability, np.zeros((6, 4), bool), 2), masks)


def test_above_one_the_whole_landslide_goes_and_the_others_stay():
    masks = np.zeros((2, 8, 8), np.uint8)
    masks[:, :3, 2:4] = masks[:, 5:7, 5:7] = 1
    missing = np.array([[True, False, False, False], [False, True, True, True]])
    found = doubted(masks, np.ones((2, 8, 8), np.float32), missing, 1.1)
    assert not found[0, :3].any() and found[0, 5:7, 5:7].all() and np.array_equal(found[1], masks[1] == 1)
