"""Post-processing of predicted masks: small holes are filled, then small components are removed."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

LANDSLIDE = np.zeros((3, 3, 3), np.uint8)
"""Neighbourhood of landslide pixels of a stack of tiles: the eight around a pixel, none in another tile."""
LANDSLIDE[1] = 1

HOLE = np.zeros((3, 3, 3), np.uint8)
"""Neighbourhood of background pixels: four of the same tile.

Of two neighbourhoods that differ like this (8 and 4), a ring of landslide always parts the hole within from what is outside, and what lies
around what is a tree; with the same for both, a diagonal would be crossed by both or by neither.
"""
HOLE[1] = ndimage.generate_binary_structure(2, 1)


def postprocess(masks: np.ndarray, min_area: float = 0, max_hole: float = 0) -> np.ndarray:
    """Fill small holes of masks, then remove small components.

    A hole is background that is joined over the sides of pixels, has landslide all around it and does not touch the edge of the tile,
    where nobody knows how it goes on. What lies in a filled hole becomes part of the component around it, so that components are measured
    as they are seen in the end; their pixels are joined over sides and corners.

    Args:
        masks: Masks (N, H, W) or one (H, W), nonzero is landslide.
        min_area: Components of fewer pixels are removed.
        max_hole: Holes of this many pixels or fewer are filled.

    Returns:
        New masks of the same shape, bool.
    """
    stack = np.reshape(np.asarray(masks) != 0, (-1, *np.shape(masks)[-2:]))
    if max_hole >= 1:
        labels, number = ndimage.label(~stack, HOLE)
        small = np.bincount(labels.ravel(), minlength=number + 1) <= max_hole
        small[at_edge(labels)] = False
        stack = stack | small[labels]
    if min_area > 1:
        labels, number = ndimage.label(stack, LANDSLIDE)
        large = np.bincount(labels.ravel(), minlength=number + 1) >= min_area
        large[0] = False
        stack = large[labels]
    return stack.reshape(np.shape(masks))


def at_edge(labels: np.ndarray) -> np.ndarray:
    """Return the labels that occur at the edges of a stack of tiles (N, H, W), 0 among them."""
    edges = (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1])
    return np.unique(np.concatenate([[0], *(edge.ravel() for edge in edges)]))
