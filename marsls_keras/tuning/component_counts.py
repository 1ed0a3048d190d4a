"""Count true and false positives after post-processing, for all candidate sizes from one labelling of the masks."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from marsls_keras.inference.decision_elements.max_hole import HOLES
from marsls_keras.inference.decision_elements.min_area import AREAS
from marsls_keras.inference.postprocess import HOLE, LANDSLIDE, at_edge


def positives_by_area(masks: np.ndarray, truth: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Count true and false positives of `postprocess` at every pair of candidate sizes.

    8-connected components and 4-connected holes form a tree: each hole has one component around it, and each component
    inside lies in one hole. The area of a component after holes are filled is a sum over a subtree, so the masks are
    labelled only once for all sizes.

    Args:
        masks: Masks (N, H, W), bool, before post-processing.
        truth: True masks (N, H, W), nonzero is landslide.
        group: Group of tiles that a pixel is counted for, int, broadcast to the shape of the masks; -1 where there is
            no tile. The area of a component includes its pixels of all groups.
        groups: Number of groups.

    Returns:
        False positives and true positives, int64 (groups, holes, areas, 2); holes as in `HOLES`, areas as in `AREAS`.

    Example:
        >>> masks = np.pad(np.ones((1, 2, 2), bool), ((0, 0), (2, 2), (2, 2)))
        >>> counts = positives_by_area(masks, masks, np.zeros((1, 1, 1), int), 1)
        >>> counts[0, 0, [AREAS.index(4), AREAS.index(6)], 1].tolist()  # a component of four pixels
        [4, 0]
    """
    inside, components = ndimage.label(masks, LANDSLIDE)
    outside, backgrounds = ndimage.label(~masks, HOLE)
    known = np.broadcast_to(group, masks.shape) >= 0
    columns = 2 * (groups + 1)
    column = np.broadcast_to(
        2 * (np.asarray(group) % (groups + 1)) + (np.asarray(truth) != 0), masks.shape
    )  # the last two columns are pixels without a tile
    area, room = (
        np.bincount(inside.ravel(), minlength=components + 1),
        np.bincount(outside.ravel(), minlength=backgrounds + 1),
    )
    hole = room <= HOLES[-1]
    hole[outside[at_edge(known, HOLE)]] = False
    hole[0] = False
    own, within = _count_pairs(inside, masks, column, columns), _count_pairs(outside, hole[outside], column, columns)
    edge, filled_edge = np.zeros(components + 1, bool), np.zeros(backgrounds + 1, bool)
    beside = at_edge(known, LANDSLIDE)
    edge[inside[beside]] = filled_edge[outside[beside]] = True
    # The pixel to the left of the first pixel of a component or hole, in reading order, belongs to what surrounds it.
    start = _first(inside, components)
    parent_hole = np.where(start % masks.shape[2] > 0, outside.ravel()[start - 1], 0)
    parent_hole[0] = 0
    parent_hole[~hole[parent_hole]] = 0
    surrounding = inside.ravel()[
        _first(outside, backgrounds) - 1
    ]  # meaningless for background that is not a hole, and not used there
    found = np.zeros((len(HOLES), len(AREAS), columns), np.int64)
    for i, limit in enumerate(HOLES):
        filled = hole & (room <= limit)
        root = np.where(filled[parent_hole], surrounding[parent_hole], np.arange(components + 1))
        while not np.array_equal(further := root[root], root):
            root = further
        around = np.where(filled, root[surrounding], 0)  # the component that a filled hole becomes part of
        grown = np.zeros_like(area)
        np.add.at(grown, root, area)
        np.add.at(grown, around[filled], room[filled])
        at = np.zeros_like(edge)
        np.logical_or.at(at, root, edge)
        np.logical_or.at(at, around[filled], filled_edge[filled])
        size = np.where(at, len(AREAS), np.searchsorted(AREAS, grown, side="right")) - 1
        for (label, where, pixels), becomes in ((own, root), (within, around)):
            new = becomes[label]
            stays = new > 0
            np.add.at(found[i], (size[new[stays]], where[stays]), pixels[stays])
    counted = np.moveaxis(found[..., : 2 * groups].reshape(len(HOLES), len(AREAS), groups, 2), 2, 0)
    return np.flip(np.cumsum(np.flip(counted, 2), 2), 2)  # a component counts at every size up to its own


def _count_pairs(
    labels: np.ndarray, chosen: np.ndarray, column: np.ndarray, columns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the chosen pixels per label and column; return labels, columns and numbers of pixels, each pair once."""
    pairs, pixels = np.unique(labels[chosen].astype(np.int64) * columns + column[chosen], return_counts=True)
    return pairs // columns, pairs % columns, pixels


def _first(labels: np.ndarray, number: int) -> np.ndarray:
    """Return the flat position of the first pixel of each label, int (number + 1,), 0 for label 0."""
    same = np.zeros(labels.shape, bool)
    same[:, :, 1:] = labels[:, :, 1:] == labels[:, :, :-1]
    starts = np.flatnonzero(~same & (labels > 0))[::-1]  # starts of runs along rows, backwards: the first wins below
    first = np.zeros(number + 1, np.intp)
    first[labels.ravel()[starts]] = starts
    return first
