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


def postprocess(masks: np.ndarray, min_area: float = 0, max_hole: float = 0, known: np.ndarray | None = None) -> np.ndarray:
    """Fill small holes of masks, then remove small components.

    A hole is background that is joined over the sides of pixels and has landslide all around it. What lies in a filled hole becomes part of
    the component around it, so that components are measured as they are seen in the end; their pixels are joined over sides and corners.
    What touches the edge of what is known, be it a hole or a component, is left as it is: nobody can tell how large it is. So the same
    sizes are right for a part of a picture as for the whole.

    Args:
        masks: Masks (N, H, W) or one (H, W), nonzero is landslide.
        min_area: Components of fewer pixels are removed.
        max_hole: Holes of this many pixels or fewer are filled.
        known: bool of the same shape, False where there is no tile and the masks are 0; all by default.

    Returns:
        New masks of the same shape, bool.
    """
    stack = np.reshape(np.asarray(masks) != 0, (-1, *np.shape(masks)[-2:]))
    there = np.ones(stack.shape, bool) if known is None else np.reshape(known, stack.shape)
    if max_hole >= 1:
        labels, number = ndimage.label(~stack, HOLE)
        small = np.bincount(labels.ravel(), minlength=number + 1) <= max_hole
        small[labels[at_edge(there, HOLE)]] = False
        small[0] = False
        stack = stack | small[labels]
    if min_area > 1:
        labels, number = ndimage.label(stack, LANDSLIDE)
        stays = np.bincount(labels.ravel(), minlength=number + 1) >= min_area
        stays[labels[at_edge(there, LANDSLIDE)]] = True
        stays[0] = False
        stack = stays[labels]
    return stack.reshape(np.shape(masks))


def at_edge(known: np.ndarray, neighbourhood: np.ndarray) -> np.ndarray:
    """Return the pixels with a neighbour of which nothing is known, outside of the stack (N, H, W) or in it; bool."""
    framed = np.pad(known, ((0, 0), (1, 1), (1, 1)))
    return ndimage.binary_dilation(~framed, neighbourhood)[:, 1:-1, 1:-1]
