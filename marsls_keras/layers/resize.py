"""Resize feature maps by matrix products, to sizes that may be known only when the graph runs.

A matrix product has a gradient on every backend and under XLA.
"""

from __future__ import annotations

from typing import Any

from keras import ops


def interpolation(source: Any, target: Any, align_corners: bool = False) -> Any:
    """Return the matrix that resizes an axis by linear interpolation.

    Pixel centres lie at half-integers, as in TensorFlow's `resize` without antialiasing.

    Args:
        source: Length of the axis, an int or an integer scalar.
        target: Its length afterwards, likewise.
        align_corners: Whether the first and the last pixel keep their places instead, as in PyTorch's option of this
            name.

    Returns:
        float32 (target, source), rows of sum 1. Where both lengths are equal it is the identity, exactly.

    Example:
        >>> np.array(interpolation(2, 4)).tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
        >>> np.array(interpolation(2, 3, align_corners=True)).tolist()
        [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    last, length = ops.cast(source, "float32") - 1, ops.cast(target, "float32")
    if align_corners:
        position = ops.arange(target, dtype="float32") * (last / ops.maximum(length - 1, 1.0))
    else:
        position = (ops.arange(target, dtype="float32") + 0.5) * ((last + 1) / length) - 0.5
    position = ops.clip(position, 0.0, last)
    return ops.relu(1 - ops.abs(position[:, None] - ops.arange(source, dtype="float32")[None]))


def bilinear(maps: Any, height: Any, width: Any) -> Any:
    """Resize maps float32 (B, h, w) to (B, height, width) by bilinear interpolation.

    Example:
        >>> np.array(bilinear(np.array([[[0.0, 1.0]]], "float32"), 1, 4)).tolist()
        [[[0.0, 0.25, 0.75, 1.0]]]
    """
    _, h, w = ops.shape(maps)
    return ops.matmul(ops.matmul(interpolation(h, height), maps), ops.transpose(interpolation(w, width)))


def area(maps: Any, height: Any, width: Any) -> Any:
    """Resize maps float32 (B, H, W, C) to (B, height, width, C) by area averaging.

    Each pixel of the result is the mean over the area that it covers.

    Example:
        >>> np.array(area(np.arange(4.0, dtype="float32").reshape(1, 1, 4, 1), 1, 2))[0, 0, :, 0].tolist()
        [0.5, 2.5]
    """
    _, h, w, _ = ops.shape(maps)
    rows, columns = _coverage(h, height), _coverage(w, width)
    return ops.einsum("ij,kl,bjlc->bikc", rows, columns, maps)


def _coverage(source: Any, target: Any) -> Any:
    """Return the share of each target pixel's length in each source pixel, float32 (target, source); rows sum to 1."""
    begin, pixel = ops.arange(target, dtype="float32")[:, None], ops.arange(source, dtype="float32")[None]
    source, target = ops.cast(source, "float32"), ops.cast(target, "float32")
    begin, pixel = begin * source, pixel * target  # in units of 1 / (source x target), whole numbers
    return ops.relu(ops.minimum(begin + source, pixel + target) - ops.maximum(begin, pixel)) / source
