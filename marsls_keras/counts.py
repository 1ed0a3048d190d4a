"""Pixel counts and every score that follows from them; NumPy only, so that scoring a zip does not import TensorFlow.

Counts are pooled over pixels first and turned into a score once: the challenge ranks by that, and a mean of per-batch scores is another
number. Pixels of weight 0 are not counted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

BINS = 1000
"""Bins of the threshold histogram; thresholds are k / BINS for k = 0 … BINS."""

_EDGES = np.append(np.arange(BINS) / BINS, np.inf).astype(np.float32)

SCORES = ("miou", "iou_fg", "iou_bg", "f1", "precision", "recall")
"""The scores that are reported, the ranking one first."""

NO_INTERVAL = "no interval: one block"
"""What is said of a score whose interval is None; see `marsls_keras.intervals`."""

IMAGE_SCORES = ("f1", "accuracy", "precision", "recall")
"""The scores of a detection: whether there is landslide in an image."""


@dataclass(frozen=True)
class Counts:
    """Confusion counts of a binary segmentation; each field is a number or an array of one shape (per tile, per threshold)."""

    tp: Any
    fp: Any
    fn: Any
    tn: Any

    def __add__(self, other: Counts) -> Counts:
        """Pool two counts."""
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    def pooled(self) -> Counts:
        """Sum array fields to one count."""
        return Counts(*(int(np.sum(field)) for field in (self.tp, self.fp, self.fn, self.tn)))

    def scores(self) -> dict[str, Any]:
        """Return mIoU, IoU of foreground and background, F1, precision and recall, in [0, 1] and of the shape of the fields.

        A score whose class occurs neither in the truth nor in the prediction is 1: there was nothing to find and nothing was claimed. A
        precision without any predicted pixel, or a recall without any true one, is 0 as soon as the other side has some.
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
        """Return F1, accuracy, precision and recall of counts of images, as `scores` does; the accuracy of no image at all is 1."""
        tp, fp, fn, tn = (np.asarray(field, dtype=np.float64) for field in (self.tp, self.fp, self.fn, self.tn))
        total = tp + fp + fn + tn
        accuracy = np.where(total > 0, (tp + tn) / np.maximum(total, 1), 1.0)
        values = {**self.scores(), "accuracy": float(accuracy) if accuracy.ndim == 0 else accuracy}
        return {name: values[name] for name in IMAGE_SCORES}


def confusion(truth: np.ndarray, prediction: np.ndarray, weight: np.ndarray | None = None, axis: Any = None) -> Counts:
    """Count truth against prediction.

    Args:
        truth: Mask, any shape, nonzero is landslide.
        prediction: Predicted mask of the same shape.
        weight: Optional, same shape; pixels of weight 0 are left out.
        axis: Axes to sum over; None sums over all.

    Raises:
        ValueError: If the shapes differ.
    """
    if np.shape(truth) != np.shape(prediction):
        raise ValueError(f"truth and prediction differ in shape. Received: {np.shape(truth)} and {np.shape(prediction)}")
    truth, prediction = np.asarray(truth) != 0, np.asarray(prediction) != 0
    used = np.ones(truth.shape, bool) if weight is None else np.asarray(weight) > 0
    cells = (truth & prediction, ~truth & prediction, truth & ~prediction, ~truth & ~prediction)
    fields = [np.sum(cell & used, axis=axis, dtype=np.int64) for cell in cells]
    return Counts(*(int(field) if np.ndim(field) == 0 else field for field in fields))


def detection(masks: np.ndarray, landslide: np.ndarray) -> dict[str, Any]:
    """Return how well images with landslide were told from those without, pooled over the images, at threshold 0.5.

    Args:
        masks: Masks (N, H, W), nonzero is landslide; an image with any such pixel has landslide.
        landslide: Probability of each image that it has, (N,).

    Returns:
        "threshold", "scores" (`Counts.image_scores`) and "counts".
    """
    counts = confusion(np.any(masks, axis=(1, 2)), landslide >= 0.5)
    return {"threshold": 0.5, "scores": counts.image_scores(), "counts": asdict(counts)}


def histogram(truth: np.ndarray, probability: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Return how many pixels of each class have a probability in each bin: int64 (2, BINS), row 0 background, row 1 landslide.

    Bin k holds probabilities in [k / BINS, (k + 1) / BINS), the edges as float32; a probability of 1 falls in the last bin. Histograms of
    parts add up.
    """
    truth, probability = np.asarray(truth).ravel() != 0, np.asarray(probability, dtype=np.float32).ravel()
    if weight is not None:
        used = np.asarray(weight).ravel() > 0
        truth, probability = truth[used], probability[used]
    bins = np.clip((probability * np.float32(BINS)).astype(np.int64), 0, BINS - 1)
    # The product is rounded: at an edge it may lie one bin off what a comparison with the threshold says.
    bins += probability >= _EDGES[bins + 1]
    bins -= probability < _EDGES[bins]
    return np.bincount(truth * BINS + bins, minlength=2 * BINS).reshape(2, BINS)


def counts_at_thresholds(hist: np.ndarray) -> Counts:
    """Return the counts at the thresholds 0, 1 / BINS … (BINS - 1) / BINS from histograms (…, 2, BINS); each field is int64 (…, BINS).

    At threshold k / BINS a pixel is landslide if its bin is k or higher.
    """
    positive = np.flip(np.cumsum(np.flip(hist, -1), -1), -1)
    total = hist.sum(-1, keepdims=True)
    fp, tp = positive[..., 0, :], positive[..., 1, :]
    return Counts(tp, fp, total[..., 1, :] - tp, total[..., 0, :] - fp)
