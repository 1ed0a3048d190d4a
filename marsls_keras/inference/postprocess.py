"""Post-processing of predicted masks: fill small holes, then remove small components."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

LANDSLIDE = np.zeros((3, 3, 3), np.uint8)
"""Neighbourhood of landslide pixels of a stack of tiles: the eight around a pixel, none in another tile."""
LANDSLIDE[1] = 1

HOLE = np.zeros((3, 3, 3), np.uint8)
"""Neighbourhood of background pixels: four of the same tile.

Of two neighbourhoods that differ like this (8 and 4), a ring of landslide always parts the hole within from what is
outside, and what lies around what is a tree; with the same for both, a diagonal would be crossed by both or by neither.
"""
HOLE[1] = ndimage.generate_binary_structure(2, 1)


def postprocess(
    masks: np.ndarray, min_area: float = 0, max_hole: float = 0, known: np.ndarray | None = None
) -> np.ndarray:
    """Fill small holes of masks, then remove small components.

    What lies in a filled hole becomes part of the component around it, so that components are measured as they are seen
    in the end.

    Args:
        masks: Masks (N, H, W) or one (H, W), nonzero is landslide.
        min_area: As in `remove_components`.
        max_hole: As in `fill_holes`.
        known: As in `fill_holes`.

    Returns:
        New masks of the same shape, bool.

    Example:
        >>> ring = np.pad(np.pad(np.zeros((1, 1), bool), 1, constant_values=True), 1)
        >>> int(postprocess(ring, min_area=9, max_hole=1).sum())  # its hole belongs to it, so that it has 9 pixels
        9
    """
    return remove_components(fill_holes(masks, max_hole, known), min_area, known)


def fill_holes(masks: np.ndarray, max_hole: float, known: np.ndarray | None = None) -> np.ndarray:
    """Fill the small holes of masks.

    A hole is background that is joined over the sides of pixels and has landslide all around it. One that touches the
    edge of what is known is left as it is: nobody can tell how large it is. So the same size is right for a part of a
    picture as for the whole.

    Args:
        masks: Masks (N, H, W) or one (H, W), nonzero is landslide.
        max_hole: Holes of this many pixels or fewer are filled.
        known: bool of the same shape, False where there is no tile and the masks are 0; all by default.

    Returns:
        New masks of the same shape, bool.

    Example:
        >>> ring = np.pad(np.pad(np.zeros((1, 1), bool), 1, constant_values=True), 1)
        >>> int(fill_holes(ring, 1).sum())
        9
    """
    stack, there = _stacked(masks, known)
    if max_hole >= 1:
        labels, number = ndimage.label(~stack, HOLE)
        small = np.bincount(labels.ravel(), minlength=number + 1) <= max_hole
        small[labels[at_edge(there, HOLE)]] = False
        small[0] = False
        stack = stack | small[labels]
    return stack.reshape(np.shape(masks))


def remove_components(masks: np.ndarray, min_area: float, known: np.ndarray | None = None) -> np.ndarray:
    """Remove the small components of masks, whose pixels are joined over sides and corners.

    One that touches the edge of what is known is left as it is, as a hole is by `fill_holes`.

    Args:
        masks: Masks (N, H, W) or one (H, W), nonzero is landslide.
        min_area: Components of fewer pixels are removed.
        known: bool of the same shape, False where there is no tile and the masks are 0; all by default.

    Returns:
        New masks of the same shape, bool.

    Example:
        >>> int(remove_components(np.pad(np.eye(2), 1), 3).sum())
        0
    """
    stack, there = _stacked(masks, known)
    if min_area > 1:
        labels, number = ndimage.label(stack, LANDSLIDE)
        stays = np.bincount(labels.ravel(), minlength=number + 1) >= min_area
        stays[labels[at_edge(there, LANDSLIDE)]] = True
        stays[0] = False
        stack = stays[labels]
    return stack.reshape(np.shape(masks))


def _stacked(masks: np.ndarray, known: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return masks and what is known of them as stacks (N, H, W), bool."""
    stack = np.reshape(np.asarray(masks) != 0, (-1, *np.shape(masks)[-2:]))
    return stack, np.ones(stack.shape, bool) if known is None else np.reshape(known, stack.shape)


def at_edge(known: np.ndarray, neighbourhood: np.ndarray) -> np.ndarray:
    """Return the pixels with a neighbour of which nothing is known, outside of the stack (N, H, W) or in it; bool.

    Example:
        >>> at_edge(np.ones((1, 3, 3), bool), LANDSLIDE)[0].tolist()
        [[True, True, True], [True, False, True], [True, True, True]]
    """
    framed = np.pad(known, ((0, 0), (1, 1), (1, 1)))
    found: np.ndarray = ndimage.binary_dilation(~framed, neighbourhood)[:, 1:-1, 1:-1]
    return found
