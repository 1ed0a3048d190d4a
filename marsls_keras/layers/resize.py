"""Resizing maps to a size that may be known only when the graph runs; a matrix product, so that every backend and XLA has its gradient."""

from __future__ import annotations

from typing import Any

from keras import ops


def interpolation(source: Any, target: Any) -> Any:
    """Return the matrix that resizes an axis linearly, pixel centres at half-integers, as TensorFlow's `resize` without antialiasing does.

    Args:
        source: Length of the axis, an int or an integer scalar.
        target: Its length afterwards, likewise.

    Returns:
        float32 (target, source), rows of sum 1. Where both lengths are equal it is the identity, exactly.
    """
    scale = ops.cast(source, "float32") / ops.cast(target, "float32")
    position = (ops.arange(target, dtype="float32") + 0.5) * scale - 0.5
    position = ops.clip(position, 0.0, ops.cast(source, "float32") - 1)
    return ops.relu(1 - ops.abs(position[:, None] - ops.arange(source, dtype="float32")[None]))


def bilinear(maps: Any, height: Any, width: Any) -> Any:
    """Resize maps float32 (B, h, w) to (B, height, width)."""
    _, h, w = ops.shape(maps)
    return ops.matmul(ops.matmul(interpolation(h, height), maps), ops.transpose(interpolation(w, width)))


def area(maps: Any, height: Any, width: Any) -> Any:
    """Resize maps float32 (B, H, W, C) to (B, height, width, C); each pixel is the mean over the area that it covers."""
    _, h, w, _ = ops.shape(maps)
    rows, columns = _coverage(h, height), _coverage(w, width)
    return ops.einsum("ij,kl,bjlc->bikc", rows, columns, maps)


def _coverage(source: Any, target: Any) -> Any:
    """Return how much of each target pixel's length lies in each source pixel, float32 (target, source); rows sum to 1."""
    begin, pixel = ops.arange(target, dtype="float32")[:, None], ops.arange(source, dtype="float32")[None]
    source, target = ops.cast(source, "float32"), ops.cast(target, "float32")
    begin, pixel = begin * source, pixel * target  # in units of 1 / (source x target), whole numbers
    return ops.relu(ops.minimum(begin + source, pixel + target) - ops.maximum(begin, pixel)) / source
