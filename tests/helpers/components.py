"""Post-processing of masks computed with scikit-image, as a reference."""

import numpy as np
from skimage.measure import label, regionprops
from skimage.morphology import remove_small_holes, remove_small_objects
from skimage.segmentation import clear_border


def by_scikit_image(mask: np.ndarray, min_area: int, max_hole: int) -> np.ndarray:
    """Return the expected post-processing of a mask (H, W).

    A wide frame joins the background at the edges to one component that is never a hole.

    A component at the edge stays.
    """
    framed = np.pad(mask != 0, 40)
    if max_hole:
        framed = remove_small_holes(framed, max_size=max_hole, connectivity=1)
    filled = framed[40:-40, 40:-40]
    if not min_area:
        return filled
    at_edge = filled & (clear_border(label(filled, connectivity=2)) == 0)
    return remove_small_objects(filled, max_size=min_area - 1, connectivity=2) | at_edge


def of_regions(mask: np.ndarray, min_area: int, max_hole: int, known: np.ndarray) -> np.ndarray:
    """Return the same for a mask (H, W) with unknown parts, region by region."""
    done, unknown = mask.copy(), np.pad(~known, 1, constant_values=True)
    shifts = {1: [(0, 1), (1, 0), (1, 2), (2, 1)], 2: [(r, c) for r in range(3) for c in range(3) if (r, c) != (1, 1)]}

    def regions(of: np.ndarray, connectivity: int):
        beside = ~known | np.any(
            [unknown[r : r + len(mask), c : c + len(mask[0])] for r, c in shifts[connectivity]], axis=0
        )
        for region in regionprops(label(of, connectivity=connectivity)):
            rows, columns = region.coords.T
            if not beside[rows, columns].any():
                yield len(rows), (rows, columns)

    for size, pixels in list(regions(~done, 1)):
        done[pixels] |= size <= max_hole
    for size, pixels in list(regions(done, 2)):
        done[pixels] &= size >= min_area
    return done
