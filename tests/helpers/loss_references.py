"""Reference implementations of the loss terms in NumPy and float64, from their definitions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def probability(logits: Array) -> Array:
    return 1 / (1 + np.exp(-logits))


def bce(truth, logits, weight, label_smoothing=0.0):
    return weighted_bce(truth, logits, weight, 1.0, label_smoothing)


def weighted_bce(truth, logits, weight, positive_weight, label_smoothing=0.0):
    return focal(truth, logits, weight, None, 0.0, label_smoothing, positive_weight)


def focal(truth, logits, weight, alpha=0.25, gamma=2.0, label_smoothing=0.0, positive_weight=1.0):
    p = probability(logits)
    share = np.where(truth == 1, 1 - label_smoothing / 2, label_smoothing / 2)  # of the class "landslide"
    a, b = (positive_weight, 1.0) if alpha is None else (alpha, 1 - alpha)
    costs = -a * share * (1 - p) ** gamma * np.log(p) - b * (1 - share) * p**gamma * np.log(1 - p)
    return np.average(costs, weights=weight)


def log_cosh(truth, logits, weight):
    return np.average(np.log(np.cosh(probability(logits) - truth)), weights=weight)


def center(truth, logits, weight):
    p, cost = probability(logits), 0.0
    for kind in (0, 1):
        mine = (truth == kind) & (weight > 0)
        if mine.any():
            cost += np.sum(weight[mine] * (p[mine] - np.average(p[mine], weights=weight[mine])) ** 2) / 2
    return cost / np.sum(weight)


def dice(truth, logits, weight, smooth=1.0, epsilon=0.0):
    p = probability(logits)
    return 1 - (2 * np.sum(weight * p * truth) + smooth) / (
        np.sum(weight * p) + np.sum(weight * truth) + smooth + epsilon
    )


def iou(truth, logits, weight, smooth=1.0):
    p = probability(logits)
    return 1 - (np.sum(weight * p * truth) + smooth) / (np.sum(weight * (p + truth - p * truth)) + smooth)


def tversky(truth, logits, weight, alpha=0.3, beta=0.7, smooth=1.0):
    p = probability(logits)
    hit, false_alarm, miss = (np.sum(weight * v) for v in (p * truth, p * (1 - truth), (1 - p) * truth))
    return 1 - (hit + smooth) / (hit + alpha * false_alarm + beta * miss + smooth)


def jaccard_loss(truth, wrong, weight):
    """Return 1 - IoU of landslide when exactly the pixels `wrong` are predicted wrongly."""
    landslide = truth == 1
    union = np.sum(weight[landslide | wrong])
    return 1 - np.sum(weight[landslide & ~wrong]) / union if union else 0.0


def lovasz(truth, logits, weight):
    """Return the Lovász extension of the Jaccard loss at the hinge errors.

    It is the sum of each error times what its pixel adds to the loss of the set."""
    used = weight > 0
    truth, logits, weight = truth[used], logits[used], weight[used]
    errors = np.maximum(0, 1 - logits * (2 * truth - 1))
    wrong, before, result = np.zeros(truth.shape, bool), 0.0, 0.0
    for pixel in np.argsort(-errors):
        wrong[pixel] = True
        after = jaccard_loss(truth, wrong, weight)
        result += errors[pixel] * (after - before)
        before = after
    return result


def largest(values: Array, used: Array, window: int) -> Array:
    """Return the largest value of the used pixels in a window around each used pixel; 0 elsewhere. Arrays (B, H, W)."""
    result, radius = np.zeros(values.shape), window // 2
    for tile, row, column in zip(*np.nonzero(used), strict=True):
        around = (
            tile,
            slice(max(row - radius, 0), row + radius + 1),
            slice(max(column - radius, 0), column + radius + 1),
        )
        result[tile, row, column] = values[around][used[around]].max()
    return result


def boundary(truth, logits, weight, theta0=3, theta=5, smooth=1.0):
    used = weight > 0
    edges = [np.where(used, largest(1 - mask, used, theta0) - (1 - mask), 0) for mask in (truth, probability(logits))]
    actual, predicted = edges
    precision = (np.sum(weight * predicted * largest(actual, used, theta)) + smooth) / (
        np.sum(weight * predicted) + smooth
    )
    recall = (np.sum(weight * actual * largest(predicted, used, theta)) + smooth) / (np.sum(weight * actual) + smooth)
    return 1 - 2 * precision * recall / (precision + recall)


def boundary_dice(truth, logits, weight, radius=2, smooth=1.0, epsilon=0.0):
    used, window = weight > 0, 2 * radius + 1
    band = (largest(truth, used, window) == 1) & (largest(1 - truth, used, window) == 1)
    return dice(truth, logits, weight * band, smooth, epsilon) if band.any() else 0.0


REFERENCES: dict[str, Callable[..., float]] = {
    function.__name__: function
    for function in (bce, weighted_bce, focal, log_cosh, center, dice, iou, tversky, lovasz, boundary, boundary_dice)
}


def reference(
    name: str, truth: Array, logits: Array, weight: Array | None = None, reduction: str = "pooled", **parameters
) -> float:
    """Return the reference value of a term for masks, logits and weights (B, H, W, 1)."""
    truth, logits = np.asarray(truth, np.float64)[..., 0], np.asarray(logits, np.float64)[..., 0]
    weight = np.ones(truth.shape) if weight is None else np.asarray(weight, np.float64)[..., 0]
    if reduction == "pooled":
        return float(REFERENCES[name](truth, logits, weight, **parameters))
    counted = weight > 0
    if name == "boundary_dice":  # a tile without a boundary has no pixel that counts
        window = 2 * parameters.get("radius", 2) + 1
        counted = (largest(truth, weight > 0, window) == 1) & (largest(1 - truth, weight > 0, window) == 1)
    tiles = [i for i in range(len(truth)) if counted[i].any()]
    return float(
        np.mean([REFERENCES[name](*(a[i : i + 1] for a in (truth, logits, weight)), **parameters) for i in tiles])
    )
