"""Views for test-time augmentation, each with its inverse: the symmetries of the square, shifts, scales; of tiles or of windows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from marsls_keras.data.formats.tile import resample
from marsls_keras.errors import InputError
from marsls_keras.names import meant

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
"""Names of the symmetries."""

_GRAIN = 32
"""Sides that views change stay multiples of this, which every encoder halves evenly."""

VIEW_SETS: dict[str, tuple[str, ...]] = {
    "identity": ("identity",),
    "flips": ("identity", "horizontal_flip", "vertical_flip", "rot180"),
    "paper": ("identity", "horizontal_flip", "vertical_flip", "rot90"),
    "rotations": ("identity", "rot90", "rot180", "rot270"),
    "d4": VIEWS,
    "shifts": ("identity", "shift_8", "shift_16", "shift_24"),
    "scales": ("identity", "scale_0.75", "scale_1.25"),
    "d4_scales": (*VIEWS, "scale_0.75", "scale_1.25"),
}
"""Named sets of views whose predictions are averaged; "paper" is the set of DualSwinFusionSeg (PBVS 2026)."""


class ViewPrediction(NamedTuple):
    """What a network says about N tiles as one view shows them, turned back.

    Attributes:
        probability: Landslide probability of each pixel, (N, H, W).
        landslide: Probability of each tile that there is any landslide in it, (N,); None if the network has no head for that.
    """

    probability: np.ndarray
    landslide: np.ndarray | None


def apply_view(images: np.ndarray, view: str) -> np.ndarray:
    """Return images (N, H, W, …) as the view shows them.

    A quarter turn changes H and W. `shift_<k>`, 0 < k < 32: 32 pixels are added along both axes, k of them before the first pixel,
    mirrored at the border, so that the grids of pooling lie elsewhere and nothing is lost. `scale_<f>`: the sides times f, to the nearest
    multiple of 32, bilinear; values stay, those of bands that are derived from distances, too.
    """
    if view in _VIEWS:
        turns, mirror = _VIEWS[view]
        return np.rot90(images[:, :, ::-1] if mirror else images, turns, axes=(1, 2))
    height, width = viewed_size(view, *images.shape[1:3])
    if view.startswith("shift"):
        before = int(view.removeprefix("shift_"))
        margin = (before, _GRAIN - before)
        return np.pad(images, ((0, 0), margin, margin, *((0, 0),) * (images.ndim - 3)), mode="symmetric")
    return np.stack([resample(image, height, width, order=1) for image in images])


def viewed_size(view: str, height: int, width: int) -> tuple[int, int]:
    """Return the height and width that pictures of a height and width have in a view."""
    if view in _VIEWS:
        return (width, height) if _VIEWS[view][0] % 2 else (height, width)
    if view.startswith("shift"):
        return height + _GRAIN, width + _GRAIN
    factor = float(view.removeprefix("scale_"))
    sides = [max(round(side * factor / _GRAIN), 1) * _GRAIN for side in (height, width)]
    return sides[0], sides[1]


def view_turn(view: str) -> np.ndarray:
    """Return what a vector (down the rows, along the columns) becomes in a view: float32 (2, 2)."""
    turns, mirror = _VIEWS.get(view, (0, False))
    return np.linalg.matrix_power(np.array([[0, -1], [1, 0]], np.float32), turns) @ np.diag([1.0, -1.0 if mirror else 1.0]).astype(
        np.float32
    )


def invert_view(images: np.ndarray, view: str, height: int, width: int) -> np.ndarray:
    """Return images (N, …) in the place and size, height x width, of those that `apply_view` was given; exact but for scales."""
    if view in _VIEWS:
        turns, mirror = _VIEWS[view]
        turned = np.rot90(images, -turns, axes=(1, 2))
        return turned[:, :, ::-1] if mirror else turned
    if view.startswith("shift"):
        before = int(view.removeprefix("shift_"))
        return images[:, before : before + height, before : before + width]
    return np.stack([resample(image, height, width, order=1) for image in images])


def split_view(view: str) -> tuple[str, int | None, int | None]:
    """Return what a view does and, if it is one of windows ("<view>@<window>/<stride>"), their side and stride in pixels."""
    plain, at, sizes = view.partition("@")
    if not at:
        return plain, None, None
    window, stride = sizes.split("/")
    return plain, int(window), int(stride)


def of_windows(name: str) -> bool:
    """Return whether a set of views is one of windows across tile borders instead of single tiles."""
    return "@" in name


def views_of(name: str) -> Sequence[str]:
    """Return the views of a named set.

    "<set>@<window>" has the views of the set, of overlapping windows of the picture that the tiles were cut from instead of single tiles:
    one every half window, or "<set>@<window>/<stride>".

    Raises:
        InputError: If there is no such set, or windows are smaller than 32 pixels or leave gaps.
    """
    plain, at, sizes = name.partition("@")
    if plain not in VIEW_SETS:
        raise InputError(
            f"There is no set of views {name!r}.{meant(plain, VIEW_SETS)} Known: {', '.join(VIEW_SETS)}, each also as <set>@<window>."
        )
    if not at:
        return VIEW_SETS[plain]
    match = re.fullmatch(r"(\d+)(?:/(\d+))?", sizes)
    window = int(match[1]) if match else 0
    stride = int(match[2] or window // 2) if match else 0
    if window < _GRAIN or not 0 < stride <= window:
        raise InputError(
            f"Views {name!r}: expected the side of windows in pixels, {_GRAIN} or more, and, if not half of it, how far apart they are, at "
            f"most that side, such as {plain}@256 or {plain}@256/64."
        )
    return tuple(f"{view}@{window}/{stride}" for view in VIEW_SETS[plain])
