"""What post-processing does to the counts, for many sizes of components and holes at once, from one labelling of the masks."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from competition.postprocess import HOLE, LANDSLIDE, at_edge

AREAS = (0, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288)
"""Candidates in pixels for the least area of a component; 0 leaves all as it is."""

HOLES = tuple(area for area in AREAS if area <= 2048)
"""Those for the largest hole that is filled."""


def positives_by_area(masks: np.ndarray, truth: np.ndarray, unit: np.ndarray, units: int) -> np.ndarray:
    """Return the counted pixels that `postprocess` leaves as landslide, true and false ones, at every pair of sizes.

    Landslide joined over corners and background joined over sides surround one another as a tree: each hole has one component around it,
    and each component inside lies in one hole. So what a component has grown to once holes are filled is a sum over a part of the tree,
    and the masks are labelled once whatever the sizes are.

    Args:
        masks: Masks (N, H, W), bool, before post-processing.
        truth: True masks (N, H, W), nonzero is landslide.
        unit: int, of a shape that broadcasts to that of the masks: which unit (a fold, or part of one) a pixel is counted for; -1 where
            there is no tile. A component is as large as all of its pixels are together, whatever they are counted for.
        units: Number of units.

    Returns:
        int64 (units, holes, areas, 2), false positives and true positives; holes as in `HOLES`, areas as in `AREAS`.
    """
    inside, components = ndimage.label(masks, LANDSLIDE)
    outside, backgrounds = ndimage.label(~masks, HOLE)
    known = np.broadcast_to(unit, masks.shape) >= 0
    column = 2 * (np.asarray(unit) % (units + 1)) + (np.asarray(truth) != 0)  # the last unit is that of what is not known
    own, within = (
        np.bincount((labels * (2 * units + 2) + column).ravel(), minlength=(number + 1) * (2 * units + 2)).reshape(number + 1, -1, 2)
        for labels, number in ((inside, components), (outside, backgrounds))
    )
    hole = np.ones(backgrounds + 1, bool)
    hole[outside[at_edge(known, HOLE)]] = False
    hole[0] = False
    edge, filled_edge = np.zeros(components + 1, bool), np.zeros(backgrounds + 1, bool)
    beside = at_edge(known, LANDSLIDE)
    edge[inside[beside]] = filled_edge[outside[beside]] = True
    # The first pixel of a component in reading order has its surroundings to the left of it, whether it is of landslide or of a hole.
    start = _first(inside, components)
    parent_hole = np.where(start % masks.shape[2] > 0, outside.ravel()[start - 1], 0)
    parent_hole[0] = 0
    parent_hole[~hole[parent_hole]] = 0
    surrounding = inside.ravel()[_first(outside, backgrounds) - 1]  # of what is no hole, this means nothing and is not used
    found = np.zeros((units, len(HOLES), len(AREAS), 2), np.int64)
    for i, limit in enumerate(HOLES):
        filled = hole & (within.sum((1, 2)) <= limit)
        root = np.where(filled[parent_hole], surrounding[parent_hole], np.arange(components + 1))
        while not np.array_equal(further := root[root], root):
            root = further
        grown = np.zeros_like(own)
        np.add.at(grown, root, own)
        np.add.at(grown, root[surrounding[filled]], within[filled])
        at = np.zeros_like(edge)
        np.logical_or.at(at, root, edge)
        np.logical_or.at(at, root[surrounding[filled]], filled_edge[filled])
        stays = np.flatnonzero(grown.sum((1, 2)) > 0)
        stays = stays[stays > 0]
        size = np.where(at[stays], len(AREAS), np.searchsorted(AREAS, grown[stays].sum((1, 2)), side="right")) - 1
        np.add.at(found[:, i].swapaxes(0, 1), size, grown[stays, :units])
    return np.flip(np.cumsum(np.flip(found, 2), 2), 2)  # a component counts at every size up to its own


def _first(labels: np.ndarray, number: int) -> np.ndarray:
    """Return the flat position of the first pixel of each label, int (number + 1,), 0 for label 0."""
    same = np.zeros(labels.shape, bool)
    same[:, :, 1:] = labels[:, :, 1:] == labels[:, :, :-1]
    starts = np.flatnonzero(~same & (labels > 0))[::-1]  # runs along the rows, backwards: the first one is written last
    first = np.zeros(number + 1, np.intp)
    first[labels.ravel()[starts]] = starts
    return first
