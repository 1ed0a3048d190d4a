"""Post-processing of predicted masks: fill small holes, then remove small components."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

LANDSLIDE = np.zeros((3, 3, 3), np.uint8)
"""8-connectivity of landslide pixels in a stack of tiles (N, H, W); pixels of different tiles are not connected."""
LANDSLIDE[1] = 1

HOLE = np.zeros((3, 3, 3), np.uint8)
"""4-connectivity of background pixels in a stack of tiles.

With 8-connected foreground and 4-connected background, a ring of landslide always separates its hole from the outside,
and components and holes form a tree. With equal connectivity both or neither would cross a diagonal.
"""
HOLE[1] = ndimage.generate_binary_structure(2, 1)


def postprocess(
    masks: np.ndarray, min_area: float = 0, max_hole: float = 0, known: np.ndarray | None = None
) -> np.ndarray:
    """Fill small holes of masks, then remove small components.

    The pixels of a filled hole, and components inside it, become part of the component around it before its area is
    measured.

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

    A hole is a 4-connected component of background that landslide encloses. Holes at the edge of the known area are
    kept, since their size is unknown. So the same size applies to a part of a raster and to the whole.

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
    """Remove the small 8-connected components of masks.

    Components at the edge of the known area are kept, since their size is unknown.

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
    """Return masks and `known` as bool stacks (N, H, W)."""
    stack = np.reshape(np.asarray(masks) != 0, (-1, *np.shape(masks)[-2:]))
    return stack, np.ones(stack.shape, bool) if known is None else np.reshape(known, stack.shape)


def at_edge(known: np.ndarray, neighbourhood: np.ndarray) -> np.ndarray:
    """Return the pixels that have an unknown neighbour, bool (N, H, W); pixels outside of the stack are unknown.

    Args:
        known: bool (N, H, W).
        neighbourhood: `LANDSLIDE` or `HOLE`.

    Example:
        >>> at_edge(np.ones((1, 3, 3), bool), LANDSLIDE)[0].tolist()
        [[True, True, True], [True, False, True], [True, True, True]]
    """
    framed = np.pad(known, ((0, 0), (1, 1), (1, 1)))
    found: np.ndarray = ndimage.binary_dilation(~framed, neighbourhood)[:, 1:-1, 1:-1]
    return found
