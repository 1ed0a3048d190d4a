"""Weighted sums and means over the pixels of a tile, of a batch, or of all devices that share a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from marsls_keras.lazy_imports import keras, ops

Reduction = Literal["pooled", "per_tile"]
"""Whether a loss is computed over all pixels of the batch, or per tile and averaged.

The average is over the tiles that have any pixel of nonzero weight."""


def replicas() -> int:
    """Return the number of devices that share the current batch.

    Example:
        >>> replicas()
        1
    """
    context = _replica_context()
    return context.num_replicas_in_sync if context else 1


def over_replicas(values: list[Any]) -> list[Any]:
    """Sum each value over all devices that share the batch; with one device, return the values.

    The gradient of a sum over devices is the sum of their gradients. So if every device computes the loss from such
    sums and divides it by the number of devices, then the gradients that Keras adds up over the devices are those of
    the whole batch's loss.

    Example:
        >>> over_replicas([1.0, 2.0])
        [1.0, 2.0]
    """
    context = _replica_context()
    return context.all_reduce("SUM", values) if context else values


def pixel_sums(values: list[Any], weight: Any, reduction: Reduction) -> list[Any]:
    """Return weighted sums of values over pixels.

    Args:
        values: Tensors (B, H, W, 1).
        weight: Weights (B, H, W, 1).
        reduction: "pooled" to sum over all pixels, "per_tile" over those of each tile.

    Returns:
        One sum per value, and the sum of the weights as the last; scalars if pooled, else (B, 1, 1, 1).

    Example:
        >>> import numpy as np
        >>> values, weight = np.full((2, 4, 4, 1), 0.5, "float32"), np.ones((2, 4, 4, 1), "float32")
        >>> [float(total) for total in pixel_sums([values], weight, "pooled")]
        [16.0, 32.0]
    """
    weighted = [value * weight for value in values] + [weight]
    if reduction == "per_tile":
        return [ops.sum(value, axis=(1, 2, 3), keepdims=True) for value in weighted]
    return over_replicas([ops.sum(value) for value in weighted])


def cost_of_sums(cost: Callable[..., Any], values: list[Any], weight: Any, reduction: Reduction) -> Any:
    """Return a loss that is a function of weighted sums over pixels; it is 0 if all weights are 0.

    Args:
        cost: Function of the sums that `pixel_sums` returns.
        values: Tensors (B, H, W, 1).
        weight: Weights (B, H, W, 1).
        reduction: Whether the loss is computed over all pixels, or per tile and averaged.

    Returns:
        A scalar.

    Example:
        >>> import numpy as np
        >>> values, weight = np.full((2, 4, 4, 1), 0.5, "float32"), np.ones((2, 4, 4, 1), "float32")
        >>> float(cost_of_sums(lambda total, number: 1 - total / number, [values], weight, "per_tile"))
        0.5
    """
    sums = pixel_sums(values, weight, reduction)
    total = sums[-1]
    costs = ops.where(total > 0, cost(*sums), 0.0)
    return costs if reduction == "pooled" else mean_over_tiles(costs, total)


def mean_over_tiles(costs: Any, total: Any) -> Any:
    """Return the mean cost of the tiles whose total weight is not 0, over all devices.

    Args:
        costs: Cost of each tile.
        total: Total weight of each tile, of the same shape.

    Returns:
        A scalar; 0 if there is no such tile.

    Example:
        >>> import numpy as np
        >>> float(mean_over_tiles(np.array([1.0, 3.0], "float32"), np.array([5.0, 0.0], "float32")))
        1.0
    """
    counted = ops.cast(total > 0, "float32")
    cost, tiles = over_replicas([ops.sum(costs * counted), ops.sum(counted)])
    return ops.divide_no_nan(cost, tiles)


def mean_over_pixels(values: Any, weight: Any, reduction: Reduction) -> Any:
    """Return the weighted mean of values (B, H, W, 1) over pixels, a scalar.

    Example:
        >>> import numpy as np
        >>> values, weight = np.arange(4, dtype="float32").reshape(1, 2, 2, 1), np.ones((1, 2, 2, 1), "float32")
        >>> float(mean_over_pixels(values, weight, "pooled"))
        1.5
    """
    return cost_of_sums(ops.divide_no_nan, [values], weight, reduction)


def _replica_context() -> Any:
    """Return TensorFlow's replica context if there are several replicas, else None."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None
