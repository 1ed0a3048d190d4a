"""Losses that are means over pixels: cross-entropy, focal, log-cosh and center loss."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from marsls_keras.config.section import Positive, Probability
from marsls_keras.errors import InputError
from marsls_keras.lazy_imports import ops
from marsls_keras.losses.parameters import FromMasks, NotNegative, Smoothing
from marsls_keras.losses.sums import Reduction, mean_over_pixels, pixel_sums


def positive_weight(masks: np.ndarray) -> float:
    """Return w⁺ = N_neg / N_pos of training masks {0, 1}, an integer array of any shape (DualSwinFusionSeg, eq. 4).

    Raises:
        InputError: If no pixel is landslide.

    Example:
        >>> positive_weight(np.array([[0, 0], [0, 1]]))
        3.0
    """
    positive = np.count_nonzero(masks)
    if not positive:
        raise InputError(
            f"None of the {masks.size:,} pixels of the training masks is landslide: there is nothing to learn."
        )
    return float((masks.size - positive) / positive)


def bce(
    truth: Any, logits: Any, weight: Any, *, label_smoothing: Smoothing = 0.0, reduction: Reduction = "pooled"
) -> Any:
    """Return the mean binary cross-entropy -y log p - (1 - y) log(1 - p); p is the probability, y the truth.

    Example:
        >>> truth, logits = np.zeros((1, 2, 2, 1), "float32"), np.zeros((1, 2, 2, 1), "float32")
        >>> truth[0, 0] = 1
        >>> round(float(bce(truth, logits, np.ones_like(truth))), 4)
        0.6931
    """
    # softplus(z) = -log(1 - p), and z = log p - log(1 - p): fewer passes over the pixels than ops.binary_crossentropy.
    return mean_over_pixels(ops.softplus(logits) - logits * _smoothed(truth, label_smoothing), weight, reduction)


def weighted_bce(
    truth: Any,
    logits: Any,
    weight: Any,
    *,
    positive_weight: Annotated[Positive | None, FromMasks(positive_weight)] = None,
    label_smoothing: Smoothing = 0.0,
    reduction: Reduction = "pooled",
) -> Any:
    """Return the mean binary cross-entropy with weight w⁺ for landslide: -w⁺ y log p - (1 - y) log(1 - p).

    The mean is over pixels, not divided by the weights of the classes, as in PyTorch's `pos_weight`, which
    DualSwinFusionSeg (eq. 4) was trained with. If w⁺ is not given, it is N_neg / N_pos of the training masks.

    Example:
        >>> truth, logits = np.zeros((1, 2, 2, 1), "float32"), np.zeros((1, 2, 2, 1), "float32")
        >>> truth[0, 0] = 1
        >>> round(float(weighted_bce(truth, logits, np.ones_like(truth), positive_weight=3.0)), 4)
        1.3863
    """
    positive, negative = _negative_logs(logits)
    truth = _smoothed(truth, label_smoothing)
    return mean_over_pixels(positive_weight * truth * positive + (1 - truth) * negative, weight, reduction)


def focal(
    truth: Any,
    logits: Any,
    weight: Any,
    *,
    alpha: Probability | None = 0.25,
    gamma: NotNegative = 2.0,
    label_smoothing: Smoothing = 0.0,
    reduction: Reduction = "pooled",
) -> Any:
    """Return the mean focal loss -α y (1 - p)^γ log p - (1 - α)(1 - y) p^γ log(1 - p).

    Without alpha both classes have weight 1. Lin et al., "Focal loss for dense object detection", ICCV 2017, eq. 5,
    whose α and γ are the defaults, since DualSwinFusionSeg and RMAU-Net do not report theirs. Lin et al. divide by the
    number of assigned anchors, which a mask does not have; here it is the number of pixels.

    Example:
        >>> truth, logits = np.zeros((1, 2, 2, 1), "float32"), np.zeros((1, 2, 2, 1), "float32")
        >>> truth[0, 0] = 1
        >>> round(float(focal(truth, logits, np.ones_like(truth))), 4)
        0.0866
    """
    positive, negative = _negative_logs(logits)
    truth = _smoothed(truth, label_smoothing)
    of_positive, of_negative = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    # (1 - p)^γ from the logarithm has a finite gradient where p is 1, which a power does not have for γ < 1.
    costs = (
        of_positive * truth * ops.exp(-gamma * negative) * positive
        + of_negative * (1 - truth) * ops.exp(-gamma * positive) * negative
    )
    return mean_over_pixels(costs, weight, reduction)


def log_cosh(truth: Any, logits: Any, weight: Any, *, reduction: Reduction = "pooled") -> Any:
    """Return the mean of log cosh(p - y); p is the probability, y the truth.

    It is close to half the squared error for small errors, and to the absolute error for large ones.

    Wang et al., "A comprehensive survey of loss functions in machine learning", Annals of Data Science 2020, as cited
    by RMAU-Net. The survey gives it for regression; that the error is one of probabilities, not of logits, is a choice
    made here.

    Example:
        >>> truth, logits = np.zeros((1, 2, 2, 1), "float32"), np.zeros((1, 2, 2, 1), "float32")
        >>> truth[0, 0] = 1
        >>> round(float(log_cosh(truth, logits, np.ones_like(truth))), 4)
        0.1201
    """
    # cosh(x) = 1 + (e^(x/2) - e^(-x/2))² / 2, which keeps small errors that cosh rounds to 1, at a third of its cost.
    half = ops.exp((ops.sigmoid(logits) - truth) / 2)
    return mean_over_pixels(ops.log1p(ops.square(half - 1 / half) / 2), weight, reduction)


def center(truth: Any, logits: Any, weight: Any, *, reduction: Reduction = "pooled") -> Any:
    """Return the center loss: the mean of half the squared distance of a probability from its class centre.

    Wen et al., "A comprehensive study on center loss for deep face recognition", IJCV 2019, as cited by RMAU-Net, which
    does not say what its features and centres are. Chosen here: the feature of a pixel is its probability, and the
    centre of a class is the mean over the batch's pixels of that class (over the tile's, if per tile) instead of a
    variable that is learnt. The gradient with respect to such a centre is 0, so it is as if the centres were fixed. The
    term only reduces the spread within a class, so a constant prediction costs nothing: use it with another term, as
    Wen et al. do.

    Example:
        >>> truth, logits = np.zeros((1, 2, 2, 1), "float32"), np.zeros((1, 2, 2, 1), "float32")
        >>> truth[0, 0] = 1
        >>> round(float(center(truth, logits, np.ones_like(truth))), 4)
        0.0
    """
    probability = ops.sigmoid(logits)
    of_landslide, landslide, of_rest, rest, _ = pixel_sums(
        [probability * truth, truth, probability * (1 - truth), 1 - truth], weight, reduction
    )
    centre = truth * ops.divide_no_nan(of_landslide, landslide) + (1 - truth) * ops.divide_no_nan(of_rest, rest)
    return mean_over_pixels(ops.square(probability - centre) / 2, weight, reduction)


def _smoothed(truth: Any, label_smoothing: float) -> Any:
    """Apply label smoothing: 0 becomes s/2 and 1 becomes 1 - s/2."""
    return truth * (1 - label_smoothing) + label_smoothing / 2 if label_smoothing else truth


def _negative_logs(logits: Any) -> tuple[Any, Any]:
    """Return -log p and -log(1 - p), exact for large logits of either sign."""
    return ops.softplus(-logits), ops.softplus(logits)
