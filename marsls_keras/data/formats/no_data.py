"""Filling of pixels without data from the nearest valid pixel."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def fill_nearest(band: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Replace invalid pixels of a band (H, W) by the nearest valid pixel; by 0 if no pixel is valid.

    Example:
        >>> fill_nearest(np.array([[1.0, np.nan, 5.0, 6.0]]), np.array([[True, False, True, True]]))[0, 2:]
        array([5., 6.])
    """
    if valid.all():
        return band
    if not valid.any():
        return np.zeros_like(band)
    nearest = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return band[tuple(nearest)]
