"""Outlines of masks as paths of SVG."""

from __future__ import annotations

from typing import Any

import numpy as np
from contourpy import LineType, contour_generator


def outline_path(mask: np.ndarray) -> str:
    """Return the outlines of a mask as the `d` of an SVG path, in units of half a pixel.

    They run between pixels of different value, through the middle between their centres, so that a single pixel becomes
    a diamond. Points on a straight line between their neighbours are left out.

    Args:
        mask: bool (H, W).

    Example:
        >>> outline_path(np.array([[True]]))
        'M0 1l1-1 1 1-1 1z'
    """
    framed = np.pad(mask, 1).astype(np.float32)
    lines: Any = contour_generator(z=framed, line_type=LineType.Separate).lines(0.5)
    return "".join(_ring(line) for line in lines)


def _ring(line: np.ndarray) -> str:
    """Return a closed line (N, 2) of points (x, y), in pixel centres of a mask with a frame of one pixel, as a path."""
    # The centre of the first pixel inside of the frame is at 1, and its corner at half a pixel less.
    points = np.rint(2 * np.asarray(line) - 1).astype(int)[:-1]
    before, after = np.roll(points, 1, axis=0), np.roll(points, -1, axis=0)
    first, second = points - before, after - points
    corners = points[first[:, 0] * second[:, 1] != first[:, 1] * second[:, 0]]
    steps = np.diff(corners, axis=0)
    numbers = " ".join(map(str, steps.ravel().tolist())).replace(" -", "-")
    return f"M{corners[0, 0]} {corners[0, 1]}l{numbers}z"
