"""Views for test-time augmentation: the eight symmetries of the square, each with its exact inverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from marsls_keras.errors import InputError

# Each view is a number of quarter turns (counter-clockwise), after an optional mirroring of the columns.
_VIEWS: dict[str, tuple[int, bool]] = {
    "identity": (0, False),
    "horizontal_flip": (0, True),
    "vertical_flip": (2, True),
    "rot90": (1, False),
    "rot180": (2, False),
    "rot270": (3, False),
    "transpose": (1, True),
    "antitranspose": (3, True),
}

VIEWS = tuple(_VIEWS)
"""Names of the views."""

VIEW_SETS: dict[str, tuple[str, ...]] = {
    "identity": ("identity",),
    "flips": ("identity", "horizontal_flip", "vertical_flip", "rot180"),
    "paper": ("identity", "horizontal_flip", "vertical_flip", "rot90"),
    "rotations": ("identity", "rot90", "rot180", "rot270"),
    "d4": VIEWS,
}
"""Named sets of views whose probabilities are averaged; "paper" is the set of DualSwinFusionSeg (PBVS 2026)."""


class ViewPrediction(NamedTuple):
    """What a network says about N tiles as one view shows them, turned back.

    Attributes:
        probability: Landslide probability of each pixel, (N, H, W).
        landslide: Probability of each tile that there is any landslide in it, (N,); None if the network has no head for that.
    """

    probability: np.ndarray
    landslide: np.ndarray | None


def apply_view(images: np.ndarray, view: str) -> np.ndarray:
    """Return images (N, H, W, …) as the view shows them; H and W change places for a quarter turn."""
    turns, mirror = _VIEWS[view]
    return np.rot90(images[:, :, ::-1] if mirror else images, turns, axes=(1, 2))


def view_turn(view: str) -> np.ndarray:
    """Return what a vector (down the rows, along the columns) becomes in a view: float32 (2, 2)."""
    turns, mirror = _VIEWS[view]
    return np.linalg.matrix_power(np.array([[0, -1], [1, 0]], np.float32), turns) @ np.diag([1.0, -1.0 if mirror else 1.0]).astype(
        np.float32
    )


def invert_view(images: np.ndarray, view: str) -> np.ndarray:
    """Return what `apply_view` was given: its exact inverse."""
    turns, mirror = _VIEWS[view]
    turned = np.rot90(images, -turns, axes=(1, 2))
    return turned[:, :, ::-1] if mirror else turned


def views_of(name: str) -> Sequence[str]:
    """Return the views of a named set.

    Raises:
        InputError: If there is no such set.
    """
    if name not in VIEW_SETS:
        raise InputError(f"There is no set of views {name!r}. Known: {', '.join(VIEW_SETS)}.")
    return VIEW_SETS[name]
