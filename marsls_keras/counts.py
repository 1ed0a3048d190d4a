"""Pixel-wise confusion counts and the scores computed from them, with NumPy only.

Counts are pooled over all pixels before a score is computed, as the challenge does; a mean of scores per batch is a
different number. Pixels of weight 0 are not counted. Without TensorFlow, scoring a zip starts at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

BINS = 1000
"""Number of bins of a histogram of probabilities; the thresholds are k / BINS for k = 0 … BINS - 1."""

_EDGES = np.append(np.arange(BINS) / BINS, np.inf).astype(np.float32)

SCORES = ("miou", "iou_fg", "iou_bg", "f1", "precision", "recall")
"""Names of the pixel-wise scores; the challenge ranks by the first."""

NO_INTERVAL = "no interval: one block"
"""Text for a score whose interval is None; see `marsls_keras.intervals`."""

IMAGE_SCORES = ("f1", "accuracy", "precision", "recall")
"""Names of the scores of image-level detection."""


@dataclass(frozen=True)
class Counts:
    """Confusion counts of a binary segmentation: true and false positives, false and true negatives, in pixels.

    Each field is a number or an array, of the same shape for all (such as one value per tile or per threshold).

    Example:
        >>> counts = Counts(tp=30, fp=10, fn=20, tn=140) + Counts(tp=10, fp=0, fn=0, tn=40)
        >>> round(counts.scores()["iou_fg"], 4)  # 40 / (40 + 10 + 20)
        0.5714
    """

    tp: Any
    fp: Any
    fn: Any
    tn: Any

    def __add__(self, other: Counts) -> Counts:
        """Add the counts of two sets of pixels."""
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    def pooled(self) -> Counts:
        """Sum each field over its array, to counts of integers."""
        return Counts(*(int(np.sum(field)) for field in (self.tp, self.fp, self.fn, self.tn)))

    def scores(self) -> dict[str, Any]:
        """Return mIoU, IoU of landslide and background, F1, precision and recall, in [0, 1].

        Each score has the shape of the fields.

        A score is 1 if its class occurs neither in the truth nor in the prediction. A precision without predicted
        pixels is 0 if there are true ones, and a recall without true pixels is 0 if there are predicted ones.
        """
        tp, fp, fn, tn = (np.asarray(field, dtype=np.float64) for field in (self.tp, self.fp, self.fn, self.tn))

        def ratio(part: np.ndarray, whole: np.ndarray, empty: Any) -> np.ndarray:
            return np.where(whole > 0, part / np.maximum(whole, 1e-12), np.where(empty, 1.0, 0.0))

        absent = tp + fp + fn == 0
        iou_fg = ratio(tp, tp + fp + fn, absent)
        iou_bg = ratio(tn, tn + fp + fn, tn + fp + fn == 0)
        values = {
            "miou": (iou_fg + iou_bg) / 2,
            "iou_fg": iou_fg,
            "iou_bg": iou_bg,
            "f1": ratio(2 * tp, 2 * tp + fp + fn, absent),
            "precision": ratio(tp, tp + fp, absent),
            "recall": ratio(tp, tp + fn, absent),
        }
        return {name: float(value) if value.ndim == 0 else value for name, value in values.items()}

    def image_scores(self) -> dict[str, Any]:
        """Return F1, accuracy, precision and recall of image-level counts, in [0, 1].

        Undefined scores are as in `scores`; the accuracy over no images is 1.
        """
        tp, fp, fn, tn = (np.asarray(field, dtype=np.float64) for field in (self.tp, self.fp, self.fn, self.tn))
        total = tp + fp + fn + tn
        accuracy = np.where(total > 0, (tp + tn) / np.maximum(total, 1), 1.0)
        values = {**self.scores(), "accuracy": float(accuracy) if accuracy.ndim == 0 else accuracy}
        return {name: values[name] for name in IMAGE_SCORES}


def confusion(truth: np.ndarray, prediction: np.ndarray, weight: np.ndarray | None = None, axis: Any = None) -> Counts:
    """Count true and false positives and negatives of a predicted mask.

    Args:
        truth: Mask, any shape, nonzero is landslide.
        prediction: Predicted mask of the same shape.
        weight: Optional, same shape; pixels of weight 0 are left out.
        axis: Axes to sum over; None sums over all.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> confusion(np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0]), weight=np.array([1, 1, 1, 0]))
        Counts(tp=1, fp=1, fn=1, tn=0)
    """
    if np.shape(truth) != np.shape(prediction):
        raise ValueError(
            f"truth and prediction differ in shape. Received: {np.shape(truth)} and {np.shape(prediction)}"
        )
    truth, prediction = np.asarray(truth) != 0, np.asarray(prediction) != 0
    used = np.ones(truth.shape, bool) if weight is None else np.asarray(weight) > 0
    cells = (truth & prediction, ~truth & prediction, truth & ~prediction, ~truth & ~prediction)
    fields = [np.sum(cell & used, axis=axis, dtype=np.int64) for cell in cells]
    return Counts(*(int(field) if np.ndim(field) == 0 else field for field in fields))


def detection(masks: np.ndarray, landslide: np.ndarray) -> dict[str, Any]:
    """Score image-level detection of landslides at threshold 0.5, pooled over images.

    Args:
        masks: Masks (N, H, W), nonzero is landslide; an image with any such pixel is positive.
        landslide: Probability that an image is positive, (N,).

    Returns:
        "threshold", "scores" (`Counts.image_scores`) and "counts".

    Example:
        >>> masks = np.array([[[0, 1]], [[0, 0]], [[0, 0]]])
        >>> detection(masks, np.array([0.9, 0.6, 0.1]))["scores"]["precision"]
        0.5
    """
    counts = confusion(np.any(masks, axis=(1, 2)), landslide >= 0.5)
    return {"threshold": 0.5, "scores": counts.image_scores(), "counts": asdict(counts)}


def histogram(truth: np.ndarray, probability: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Return the histogram of probabilities for each class: int64 (2, BINS), row 0 background, row 1 landslide.

    Bin k holds probabilities in [k / BINS, (k + 1) / BINS), the edges as float32; a probability of 1 falls in the last
    bin. The histogram of a union is the sum of the histograms.

    Args:
        truth: Mask, any shape, nonzero is landslide.
        probability: Probabilities of the same shape, in [0, 1].
        weight: Optional, same shape; pixels of weight 0 are left out.

    Example:
        >>> counted = histogram(np.array([0, 1, 1]), np.array([0.25, 0.25, 1.0]))
        >>> np.argwhere(counted).tolist()  # class and bin of each pixel
        [[0, 250], [1, 250], [1, 999]]
    """
    truth, probability = np.asarray(truth).ravel() != 0, np.asarray(probability, dtype=np.float32).ravel()
    if weight is not None:
        used = np.asarray(weight).ravel() > 0
        truth, probability = truth[used], probability[used]
    bins = np.clip((probability * np.float32(BINS)).astype(np.int64), 0, BINS - 1)
    # The product is rounded: at an edge its bin may differ by one from the comparison with the threshold.
    bins += probability >= _EDGES[bins + 1]
    bins -= probability < _EDGES[bins]
    return np.bincount(truth * BINS + bins, minlength=2 * BINS).reshape(2, BINS)


def counts_at_thresholds(hist: np.ndarray) -> Counts:
    """Return the confusion counts at the thresholds 0, 1 / BINS … (BINS - 1) / BINS, from histograms of probabilities.

    At threshold k / BINS a pixel is landslide if its bin is k or higher.

    Args:
        hist: Histograms from `histogram`, int64 (…, 2, BINS).

    Returns:
        Counts whose fields are int64 (…, BINS).

    Example:
        >>> counts = counts_at_thresholds(histogram(np.array([0, 1, 1]), np.array([0.25, 0.25, 1.0])))
        >>> counts.tp[[250, 251]].tolist(), counts.fp[[250, 251]].tolist()
        ([2, 1], [1, 0])
    """
    positive = np.flip(np.cumsum(np.flip(hist, -1), -1), -1)
    total = hist.sum(-1, keepdims=True)
    fp, tp = positive[..., 0, :], positive[..., 1, :]
    return Counts(tp, fp, total[..., 1, :] - tp, total[..., 0, :] - fp)
