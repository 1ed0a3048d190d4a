"""Losses of the overlap between the predicted region and the true one."""

from __future__ import annotations

from typing import Any

from marsls_keras.lazy_imports import ops
from marsls_keras.losses.parameters import NotNegative
from marsls_keras.losses.sums import Reduction, cost_of_sums, mean_over_tiles


def dice(
    truth: Any,
    logits: Any,
    weight: Any,
    *,
    smooth: NotNegative = 1.0,
    epsilon: NotNegative = 0.0,
    reduction: Reduction = "pooled",
) -> Any:
    """Return 1 - soft Dice = 1 - (2 Σpy + smooth) / (Σp + Σy + smooth + epsilon); p is the probability, y the truth.

    Milletari et al., "V-Net", 3DV 2016. With the default smooth = 1 an empty mask predicted empty costs nothing;
    DualSwinFusionSeg (eq. 5) has smooth = 0 and epsilon = 1e-7, with which it costs 1 whatever is predicted, and has no
    gradient.

    Example:
        >>> import numpy as np
        >>> truth, logits = np.zeros((1, 2, 2, 1), "float32"), np.zeros((1, 2, 2, 1), "float32")
        >>> truth[0, 0] = 1
        >>> round(float(dice(truth, logits, np.ones_like(truth))), 4)
        0.4
    """
    probability = ops.sigmoid(logits)

    def cost(both: Any, predicted: Any, actual: Any, _: Any) -> Any:
        return 1 - ops.divide_no_nan(2 * both + smooth, predicted + actual + (smooth + epsilon))

    return cost_of_sums(cost, [probability * truth, probability, truth], weight, reduction)


def iou(truth: Any, logits: Any, weight: Any, *, smooth: NotNegative = 1.0, reduction: Reduction = "pooled") -> Any:
    """Return 1 - soft IoU = 1 - (Σpy + smooth) / (Σp + Σy - Σpy + smooth).

    Rahman & Wang, "Optimizing intersection-over-union in deep neural networks for image segmentation", ISVC 2016,
    without smooth. RMAU-Net cites Rezatofighi et al., CVPR 2019, whose generalised IoU is one of boxes.

    Example:
        >>> import numpy as np
        >>> truth, logits = np.zeros((1, 2, 2, 1), "float32"), np.zeros((1, 2, 2, 1), "float32")
        >>> truth[0, 0] = 1
        >>> round(float(iou(truth, logits, np.ones_like(truth))), 4)
        0.5
    """
    return tversky(truth, logits, weight, alpha=1.0, beta=1.0, smooth=smooth, reduction=reduction)


def tversky(
    truth: Any,
    logits: Any,
    weight: Any,
    *,
    alpha: NotNegative = 0.3,
    beta: NotNegative = 0.7,
    smooth: NotNegative = 1.0,
    reduction: Reduction = "pooled",
) -> Any:
    """Return 1 - Tversky index = 1 - (Σpy + smooth) / (Σpy + α Σp(1-y) + β Σ(1-p)y + smooth).

    α weighs false positives, β false negatives. Salehi et al., "Tversky loss function for image segmentation using 3D
    fully convolutional deep networks", MLMI 2017, without smooth; their best α = 0.3, β = 0.7 are the defaults. α = β =
    0.5 is Dice, α = β = 1 is IoU.

    Example:
        >>> import numpy as np
        >>> truth, logits = np.zeros((1, 2, 2, 1), "float32"), np.zeros((1, 2, 2, 1), "float32")
        >>> truth[0, 0] = 1
        >>> round(float(tversky(truth, logits, np.ones_like(truth))), 4)
        0.3333
    """
    probability = ops.sigmoid(logits)

    def cost(both: Any, predicted: Any, actual: Any, _: Any) -> Any:
        return 1 - ops.divide_no_nan(both + smooth, both + alpha * (predicted - both) + beta * (actual - both) + smooth)

    return cost_of_sums(cost, [probability * truth, probability, truth], weight, reduction)


def lovasz(truth: Any, logits: Any, weight: Any, *, reduction: Reduction = "pooled") -> Any:
    """Return the Lovász hinge loss, a convex surrogate of 1 - IoU of landslide.

    The pixels are sorted by their hinge error 1 - z (2y - 1), z being the logit, largest first; each error that is
    positive counts as much as its pixel, added to the wrong pixels before it, lowers the IoU. Where all errors are 0 or
    2 this is twice 1 - IoU, and without any landslide it is the largest error.

    Yu & Blaschko, "The Lovász hinge", TPAMI 2018; Berman et al., "The Lovász-softmax loss", CVPR 2018, who compute it
    image by image, which is `reduction: per_tile`. If several devices share the batch, a pooled hinge is the mean of
    one hinge per device, since sorting over devices would need all pixels on each.

    Example:
        >>> import numpy as np
        >>> truth, logits = np.zeros((1, 2, 2, 1), "float32"), np.zeros((1, 2, 2, 1), "float32")
        >>> truth[0, 0] = 1
        >>> round(float(lovasz(truth, logits, np.ones_like(truth))), 4)
        1.0
    """
    sign = 2 * truth - 1
    shape = (1, -1) if reduction == "pooled" else (ops.shape(truth)[0], -1)
    # Both are (groups, pixels).
    error, signed = ops.reshape(ops.relu(1 - logits * sign), shape), ops.reshape(weight * sign, shape)
    error, order = ops.top_k(error, ops.shape(error)[1])
    signed = ops.take_along_axis(signed, order, axis=1)
    landslide, rest = ops.relu(signed), ops.relu(-signed)
    total = ops.sum(landslide, axis=1, keepdims=True)
    # IoU after k wrong pixels: landslide pixels that are left, over all landslide pixels plus false positives so far.
    left, union = total - ops.cumsum(landslide, axis=1), total + ops.cumsum(rest, axis=1)
    before = union - rest
    # The steps of 1 - left / union in closed form: differences of it would lose most of their digits among many pixels.
    step = ops.divide_no_nan(landslide + rest * ops.where(before > 0, ops.divide_no_nan(left, before), 1.0), union)
    costs = ops.sum(error * step, axis=1)
    return costs[0] if reduction == "pooled" else mean_over_tiles(costs, ops.sum(weight, axis=(1, 2, 3)))
