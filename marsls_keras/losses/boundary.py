"""Losses of the boundary between landslide and the rest.

Boundaries lie between pixels of nonzero weight only: the edge of an ignored area is as little a boundary as the edge of
the tile.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from marsls_keras.lazy_imports import ops
from marsls_keras.losses.parameters import NotNegative, Window
from marsls_keras.losses.region import dice
from marsls_keras.losses.sums import Reduction, cost_of_sums


def boundary(
    truth: Any,
    logits: Any,
    weight: Any,
    *,
    theta0: Window = 3,
    theta: Window = 5,
    smooth: NotNegative = 1.0,
    reduction: Reduction = "pooled",
) -> Any:
    """Return 1 - boundary F1 of soft boundaries.

    The boundary of a mask x is b = pool(1 - x) - (1 - x), with the largest value in a window of theta0 pixels; widened,
    it is the largest b in a window of theta pixels. Precision is the share of the predicted boundary within the widened
    true one, recall the share of the true boundary within the widened predicted one, each with smooth added above and
    below; F1 is 2PR / (P + R).

    Bokhovkin & Burnaev, "Boundary loss for remote sensing imagery semantic segmentation", ISNN 2019, without smooth,
    image by image (`reduction: per_tile`). They set theta0 = 3, and theta not above the smallest distance between two
    segments. The boundary of a prediction with both classes swapped lies beside the true one and costs next to nothing:
    a term that knows the inside helps.

    Example:
        >>> import numpy as np
        >>> truth, logits = np.zeros((1, 2, 2, 1), "float32"), np.zeros((1, 2, 2, 1), "float32")
        >>> truth[0, 0] = 1
        >>> round(float(boundary(truth, logits, np.ones_like(truth))), 4)
        0.5
    """
    used = ops.cast(weight > 0, "float32")

    def edge(mask: Any) -> Any:
        return (_largest((1 - mask) * used, theta0) - (1 - mask)) * used

    actual, predicted = edge(truth), edge(ops.sigmoid(logits))

    def cost(hits: Any, predictions: Any, found: Any, boundary: Any, _: Any) -> Any:
        precision = ops.divide_no_nan(hits + smooth, predictions + smooth)
        recall = ops.divide_no_nan(found + smooth, boundary + smooth)
        return 1 - ops.divide_no_nan(2 * precision * recall, precision + recall)

    values = [predicted * _largest(actual, theta), predicted, actual * _largest(predicted, theta), actual]
    return cost_of_sums(cost, values, weight, reduction)


def boundary_dice(
    truth: Any,
    logits: Any,
    weight: Any,
    *,
    radius: Annotated[int, Field(ge=1)] = 2,
    smooth: NotNegative = 1.0,
    epsilon: NotNegative = 0.0,
    reduction: Reduction = "pooled",
) -> Any:
    """Return 1 - soft Dice of the pixels along the true boundary: those that have both classes within `radius` pixels, in rows and columns.

    L10 of DualSwinFusionSeg, which does not define it; that it is the Dice of a band around the true boundary is a
    choice made here, after its remark that the term gives weight to "boundary pixels" and to the noise of the
    annotation there. A tile without a boundary has no such pixel and costs nothing.

    Example:
        >>> import numpy as np
        >>> truth, logits = np.zeros((1, 2, 2, 1), "float32"), np.zeros((1, 2, 2, 1), "float32")
        >>> truth[0, 0] = 1
        >>> round(float(boundary_dice(truth, logits, np.ones_like(truth))), 4)
        0.4
    """
    used = ops.cast(weight > 0, "float32")
    band = _largest(truth * used, 2 * radius + 1) * _largest((1 - truth) * used, 2 * radius + 1)
    return dice(truth, logits, weight * band, smooth=smooth, epsilon=epsilon, reduction=reduction)


def _largest(values: Any, window: int) -> Any:
    """Return the largest value in a square window around each pixel (B, H, W, 1); beyond the tile there is nothing."""
    # Tiles as channels, since CPUs pool the channels of a pixel together: many times as fast as one channel.
    pooled = ops.max_pool(
        ops.transpose(values, (3, 1, 2, 0)), window, strides=1, padding="same", data_format="channels_last"
    )
    return ops.transpose(pooled, (3, 1, 2, 0))
