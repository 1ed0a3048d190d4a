"""Apply and invert the views of test-time augmentation: the symmetries of the square, shifts and scales."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from marsls_keras.data.formats.tile import resample
from marsls_keras.view_sets import GRAIN, SYMMETRIES


class ViewPrediction(NamedTuple):
    """Prediction of N tiles in one view, with the view inverted.

    Attributes:
        probability: Landslide probability of each pixel, (N, H, W).
        landslide: Probability that a tile contains any landslide, (N,); None if the network has no detection head.

    Example:
        >>> ViewPrediction(np.zeros((2, 32, 32), np.float32), None).probability.shape
        (2, 32, 32)
    """

    probability: np.ndarray
    landslide: np.ndarray | None


def apply_view(images: np.ndarray, view: str) -> np.ndarray:
    """Apply a view to images (N, H, W, …).

    A quarter turn swaps H and W. `shift_<k>`, 0 < k < 32, pads both axes by 32 pixels, mirrored at the border, k of
    them before the first pixel: the grids of pooling move, and no pixel is lost. `scale_<f>` resizes bilinearly by the
    factor f, to the nearest multiple of 32; values do not change, even of bands that are derived from distances.

    Example:
        >>> apply_view(np.array([[[1, 2], [3, 4]]]), "rot90")[0].tolist()
        [[2, 4], [1, 3]]
    """
    if view in SYMMETRIES:
        turns, mirror = SYMMETRIES[view]
        return np.rot90(images[:, :, ::-1] if mirror else images, turns, axes=(1, 2))
    height, width = viewed_size(view, *images.shape[1:3])
    if view.startswith("shift"):
        before = int(view.removeprefix("shift_"))
        margin = (before, GRAIN - before)
        return np.pad(images, ((0, 0), margin, margin, *((0, 0),) * (images.ndim - 3)), mode="symmetric")
    return np.stack([resample(image, height, width, order=1) for image in images])


def viewed_size(view: str, height: int, width: int) -> tuple[int, int]:
    """Return the height and width of images in a view, given those of the original images.

    Example:
        >>> viewed_size("scale_0.75", 128, 256)
        (96, 192)
    """
    if view in SYMMETRIES:
        return (width, height) if SYMMETRIES[view][0] % 2 else (height, width)
    if view.startswith("shift"):
        return height + GRAIN, width + GRAIN
    factor = float(view.removeprefix("scale_"))
    sides = [max(round(side * factor / GRAIN), 1) * GRAIN for side in (height, width)]
    return sides[0], sides[1]


def view_turn(view: str) -> np.ndarray:
    """Return the matrix, float32 (2, 2), by which a view transforms vectors with the components (down, right).

    Example:
        >>> view_turn("horizontal_flip").tolist()
        [[1.0, 0.0], [0.0, -1.0]]
    """
    turns, mirror = SYMMETRIES.get(view, (0, False))
    return np.linalg.matrix_power(np.array([[0, -1], [1, 0]], np.float32), turns) @ np.diag(
        [1.0, -1.0 if mirror else 1.0]
    ).astype(np.float32)


def invert_view(images: np.ndarray, view: str, height: int, width: int) -> np.ndarray:
    """Invert `apply_view`; return images (N, height, width, …). The inverse is exact except for scales.

    Args:
        images: Images in the view, such as predictions.
        view: Name of the view.
        height: Height of the original images.
        width: Width of the original images.

    Example:
        >>> images = np.arange(6).reshape(1, 2, 3)
        >>> np.array_equal(invert_view(apply_view(images, "rot90"), "rot90", 2, 3), images)
        True
    """
    if view in SYMMETRIES:
        turns, mirror = SYMMETRIES[view]
        turned = np.rot90(images, -turns, axes=(1, 2))
        return turned[:, :, ::-1] if mirror else turned
    if view.startswith("shift"):
        before = int(view.removeprefix("shift_"))
        return images[:, before : before + height, before : before + width]
    return np.stack([resample(image, height, width, order=1) for image in images])
