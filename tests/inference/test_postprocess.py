"""Post-processing against scikit-image, and the counts of all sizes against post-processed masks."""

from pathlib import Path

import numpy as np
import pytest
from helpers.components import by_scikit_image, of_regions
from scipy.ndimage import gaussian_filter

from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.decision_elements.max_hole import HOLES
from marsls_keras.inference.decision_elements.min_area import AREAS
from marsls_keras.inference.postprocess import postprocess
from marsls_keras.tuning.component_counts import positives_by_area


def blotches(seed: int, number: int = 6, size: int = 40, sigma: float = 0.9) -> np.ndarray:
    """Return masks with components inside holes inside components."""
    fields = np.random.default_rng(seed).normal(size=(number, size, size))
    return np.stack([gaussian_filter(field, sigma) for field in fields]) > 0


@pytest.mark.parametrize("sigma", [0.0, 0.8, 1.5])
def test_it_is_what_scikit_image_does(sigma):
    masks = blotches(1, sigma=sigma)
    for min_area, max_hole in [(0, 0), (2, 0), (0, 1), (7, 0), (0, 9), (12, 5), (30, 30), (200, 60), (9999, 9999)]:
        found = postprocess(masks, min_area, max_hole)
        assert found.dtype == bool
        assert np.array_equal(found, np.stack([by_scikit_image(mask, min_area, max_hole) for mask in masks]))
        assert np.array_equal(postprocess(masks[2].astype(np.uint8), min_area, max_hole), found[2])


def test_by_hand():
    drawn = """
    . . . . . . . .
    . # # # # # . #
    . # . . . # . .
    # # . # . # . .
    . # . . . # # #
    . # # # # # # .
    . . . . . . # #
    # . . . . . . .
    """
    mask = np.array([[cell == "#" for cell in row.split()] for row in drawn.strip().splitlines()])
    ring = np.zeros_like(mask)
    ring[1:6, 1:6] = True
    hole = np.zeros_like(mask)
    hole[2:5, 2:5], hole[3, 3] = True, False  # eight pixels, and a speck in the middle
    assert np.array_equal(postprocess(mask, 0, 7), mask)
    assert np.array_equal(
        postprocess(mask, 0, 8), mask | hole
    )  # the pixel in the right column is no hole: it is at the edge
    specks = np.zeros_like(mask)
    specks[3, 3] = True
    assert np.array_equal(
        postprocess(mask, 99, 0), mask & ~specks
    )  # all others are at the edge, so their size is unknown
    mask, hole, ring, specks = (np.pad(drawing, 1) for drawing in (mask, hole, ring, specks))  # no longer
    specks[2, 8] = specks[8, 1] = True
    assert np.array_equal(postprocess(mask, 2, 0), mask & ~specks)
    specks[4, 4] = False  # with its hole filled it is part of the ring
    assert np.array_equal(postprocess(mask, 2, 8), (mask | hole) & ~specks)
    size = int((mask & ~specks).sum())
    assert not postprocess(mask, size, 0)[ring].any()  # the ring is large enough only with the speck inside it
    assert np.array_equal(postprocess(mask, size + 7, 8), (mask | hole) & ~specks)
    assert not postprocess(mask, size + 9, 8).any()


@pytest.mark.parametrize(("seed", "sigma", "size"), [(0, 0.0, 24), (1, 0.9, 40), (2, 1.6, 33)])
def test_the_counts_of_all_sizes_are_those_of_doing_it(seed, sigma, size):
    masks, truth = blotches(seed, size=size, sigma=sigma), blotches(seed + 9, size=size, sigma=2).astype(np.uint8)
    unit = np.array([0, 0, 3, 1, 3, 1])
    found = positives_by_area(masks, truth, unit[:, None, None], 5)
    assert found.shape == (5, len(HOLES), len(AREAS), 2) and not found[[2, 4]].any()
    expected = np.zeros_like(found)
    for i, max_hole in enumerate(HOLES):
        for j, min_area in enumerate(AREAS):
            done = postprocess(masks, min_area, max_hole)
            for u in (0, 1, 3):
                of, true = done[unit == u], truth[unit == u] == 1
                expected[u, i, j] = (of & ~true).sum(), (of & true).sum()
    assert np.array_equal(found, expected)
    assert (
        len(np.unique(expected[0, :, 0].sum(-1))) > 1 and len(np.unique(expected[0, 0].sum(-1))) > 4
    )  # sizes matter here


def test_nothing_and_everything():
    truth = np.arange(32).reshape(2, 4, 4) % 2
    unit = np.array([0, 1])[:, None, None]
    empty, full = positives_by_area(truth < 0, truth, unit, 2), positives_by_area(truth >= 0, truth, unit, 2)
    assert not empty.any()
    assert (full == 8).all()  # it is at the edge
    inside = np.pad(truth >= 0, ((0, 0), (1, 1), (1, 1)))
    found = positives_by_area(inside, np.pad(truth, ((0, 0), (1, 1), (1, 1))), unit, 2)
    assert (found[:, :, : AREAS.index(16) + 1] == 8).all() and not found[:, :, AREAS.index(16) + 1 :].any()


@pytest.mark.parametrize("sigma", [0.8, 1.5])
def test_pixels_of_one_component_are_counted_for_the_units_they_lie_in(sigma):
    masks, truth = blotches(3, 1, 60, sigma), blotches(12, 1, 60, 2).astype(np.uint8)
    unit = np.repeat(np.repeat(np.array([[0, 1, 2], [2, 1, 0]]), 30, 0), 20, 1)[None]
    unit[:, 8:52:11, 5::9] = -1  # pixels without a tile
    masks &= unit >= 0
    found = positives_by_area(masks, truth, unit, 3)
    for i, max_hole in enumerate(HOLES):
        for j, min_area in enumerate(AREAS):
            done = postprocess(masks, min_area, max_hole, unit >= 0)
            if (i + j) % 5 == 0:
                assert np.array_equal(done[0], of_regions(masks[0], min_area, max_hole, unit[0] >= 0))
            expected = [[(done & (unit == u) & (truth == t)).sum() for t in (0, 1)] for u in range(3)]
            assert np.array_equal(found[:, i, j], expected)
    assert not (postprocess(masks, 0, HOLES[-1], unit >= 0) & (unit < 0)).any()


def test_what_may_go_on_in_a_cell_that_was_not_published_stays():
    refs = [
        TileRef(f"t/{i}", Path(f"{i}.tif"), None, "t", "a", cell) for i, cell in enumerate([(0, 0), (0, 1), (1, 0)])
    ]
    values = np.zeros((3, 12, 16), np.float32)
    values[0, 2:9, 10:], values[1, 2:9, :6] = 1, 1  # one landslide over the border
    values[0, 4:6, 14:], values[1, 4:6, :2] = 0, 0  # with a hole of eight pixels in it
    values[1, 8:, 7:12], values[1, 10:, 9] = (
        1,
        0,
    )  # and one with a notch at the lower border, where no tile was published
    values[2, 2:4, 14:] = 1  # a small one at the right border, likewise
    values[2, 6:8, 6:8] = 1  # and one of which all is known
    expected = values.copy()
    expected[0, 4:6, 14:], expected[1, 4:6, :2], expected[2, 6:8] = 1, 1, 0
    decision = Decision(max_hole=8, min_area=40, across_borders=True)
    assert np.array_equal(decision.segment(values, refs), expected)


def test_areas_are_those_of_the_size_the_networks_saw():
    decision = Decision(threshold=0.4, min_area=6, max_hole=0)
    small = np.zeros((16, 16), np.float32)
    small[2:4, 2:4], small[8:11, 8:11] = 0.9, 0.9  # four pixels and nine
    refs = [TileRef("t/0", Path("0.tif"), None, "t", "a", (0, 0))]
    assert decision.segment(small[None], refs).sum() == 9 and decision.segment(small[None], refs).shape == (1, 16, 16)
    ((probability, mask),) = decision.full_size(small[None], refs, [(64, 64)])
    assert probability.shape == mask.shape == (64, 64) and mask.dtype == np.uint8
    # At four times the side the smaller one has far more than six pixels, and is too small all the same.
    assert not mask[:24, :24].any() and (probability[:24, :24] >= 0.4).sum() > 40
    assert np.array_equal(mask[24:, 24:] == 1, probability[24:, 24:] >= np.float32(0.4)) and mask.sum() > 100


def test_components_go_on_across_borders_where_the_decision_says_so():
    refs = [
        TileRef(f"t/{i}", Path(f"{i}.tif"), None, "t", "a", cell) for i, cell in enumerate([(0, 0), (0, 1), (5, 5)])
    ]
    small = np.zeros((3, 8, 8), np.float32)
    small[0, 3, 6:] = small[1, 3, :2] = 1  # four pixels over a border
    small[1, 6, 3:5] = 1  # two within a tile
    small[2, 3, 6:] = 1  # two at a border beyond which nothing is known
    alone = Decision(min_area=6)
    across = alone.replace(across_borders=True)
    left = small.copy()
    left[1, 6] = 0
    assert np.array_equal(alone.segment(small, refs), left)
    left[:2] = 0
    assert np.array_equal(across.segment(small, refs), left)
    for decision, kept in ((alone, [1, 1, 1]), (across, [0, 0, 1])):
        done = list(decision.full_size(small, refs, [(16, 16)] * 3))
        assert [bool(mask.any()) for _, mask in done] == kept and all(
            mask.shape == values.shape == (16, 16) for values, mask in done
        )
    differing = list(across.full_size(small, refs, [(8, 8), (16, 16), (8, 8)]))
    assert [mask.shape for _, mask in differing] == [(8, 8), (16, 16), (8, 8)] and [
        bool(mask.any()) for _, mask in differing
    ] == [1, 1, 1]
