"""What is known of tiles before they are looked at: those without landslide were not published."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from competition.postprocess import LANDSLIDE
from marsls_keras.data.mosaic import Mosaic
from marsls_keras.data.refs import TileRef


def at_least(masks: np.ndarray, probability: np.ndarray, share: float) -> np.ndarray:
    """Return masks of which each holds at least some landslide, since a tile without any would not have been published.

    Where a mask holds less, landslide are the most probable pixels of the tile, as if its threshold were lower; among equally probable
    ones the first in reading order. The masks of the training tiles of MMLS v1 hold 5 % or more, those of MMLSv2 0.01 % or more.

    Args:
        masks: Masks (N, H, W), nonzero is landslide.
        probability: Landslide probability (N, H, W).
        share: Least share of landslide pixels, in [0, 1].

    Returns:
        bool (N, H, W).
    """
    masks = np.asarray(masks) != 0
    least = math.ceil(share * masks[0].size) if len(masks) else 0
    for i in np.flatnonzero(masks.sum((1, 2)) < least):
        most = np.argsort(-probability[i].ravel(), kind="stable")[:least]
        masks[i].flat[most] = True  # what was landslide is at least as probable, unless its mask was post-processed
    return masks


def unpublished(refs: Sequence[TileRef], height: int, width: int) -> np.ndarray:
    """Return beyond which sides of each tile no tile lies, bool (N, 4): above, below, left, right.

    Nothing is known of a tile without a cell: False. The rim of the raster counts as unpublished, since names do not tell where it is.

    Args:
        refs: All tiles that were published, whatever their split, N of them.
        height: Height of a tile in pixels.
        width: Width of a tile in pixels.
    """
    mosaic = Mosaic.of(refs, height, width, reach=1)
    row, column = (mosaic.origins // (height, width)).T
    sides = [mosaic.table[row + down, column + right] for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1))]
    return (np.stack(sides, 1) < 0) & np.array([ref.cell is not None for ref in refs])[:, None]


def doubted(masks: np.ndarray, probability: np.ndarray, missing: np.ndarray, threshold: float) -> np.ndarray:
    """Return masks without the improbable pixels of landslides that run off into a tile that was not published.

    Had such a landslide gone on, the tile beyond would have been published, so that the landslide is doubtful as a whole, and not only
    where it meets the border.

    Args:
        masks: Masks (N, H, W), nonzero is landslide.
        probability: Landslide probability (N, H, W).
        missing: bool (N, 4), from `unpublished`.
        threshold: What the probability of a pixel of such a landslide has to be at least; above 1, all of it is removed.

    Returns:
        New masks, bool (N, H, W).
    """
    masks = np.asarray(masks) != 0
    labels, number = ndimage.label(masks, LANDSLIDE)
    doubtful = np.zeros(number + 1, bool)
    for side, edge in enumerate((labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1])):
        doubtful[edge[missing[:, side]]] = True
    doubtful[0] = False
    return masks & ~(doubtful[labels] & (probability < np.float32(threshold)))
