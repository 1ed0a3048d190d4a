"""Losses of the boundary between landslide and background.

Boundaries exist only between pixels of nonzero weight: neither the edge of an ignored area nor that of the tile is one.
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
    """Return the boundary loss: 1 - F1 of the soft boundaries of truth and prediction.

    The boundary of a mask x is b = pool(1 - x) - (1 - x), with max pooling over a window of theta0 pixels; the dilated
    boundary is the largest b in a window of theta pixels. Precision is the share of the predicted boundary within the
    dilated true one, recall the share of the true boundary within the dilated predicted one, each with smooth added to
    numerator and denominator; F1 is 2PR / (P + R).

    Bokhovkin & Burnaev, "Boundary loss for remote sensing imagery semantic segmentation", ISNN 2019, without smooth,
    image by image (`reduction: per_tile`). They set theta0 = 3, and theta not above the smallest distance between two
    segments. A prediction with both classes swapped has nearly the true boundary and costs almost nothing, so combine
    this term with one of the region.

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
    """Return 1 - soft Dice over the pixels near the true boundary.

    These are the pixels with both classes in the square window that reaches `radius` pixels to each side.

    This is L10 of DualSwinFusionSeg, which does not define it. The Dice of a band around the true boundary is a choice
    made here, after its remark that the term gives weight to "boundary pixels" and to the noise of the annotation
    there. A tile without a boundary has no such pixel and costs nothing.

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
    """Return the largest value in a square window around each pixel, (B, H, W, 1); windows end at the tile's edge."""
    # Tiles as channels, since CPUs pool all channels of a pixel at once, which is many times as fast.
    pooled = ops.max_pool(
        ops.transpose(values, (3, 1, 2, 0)), window, strides=1, padding="same", data_format="channels_last"
    )
    return ops.transpose(pooled, (3, 1, 2, 0))
