"""Uncertainty of the landslide probability: variance over members and views, and entropy of the mean."""

from __future__ import annotations

import numpy as np


class RunningVariance:
    """Compute the weighted population variance of predictions online; each prediction covers some of N tiles.

    σ² = Σ w (p - μ)² / Σ w with μ = Σ w p / Σ w, summed over the predictions of a tile. The mean and the sum of squared
    deviations are updated by the method of West ("Updating mean and variance estimates: an improved method",
    Communications of the ACM 22(9), 1979), which avoids the cancellation of Σ w p² - (Σ w) μ² and is never negative.
    Memory is two float32 arrays of shape (N, H, W), independent of the number of predictions.

    Args:
        shape: (N, H, W).

    Example:
        >>> variance = RunningVariance((1, 1, 1))
        >>> for probability in (0.2, 0.6):
        ...     variance.add(np.array([0]), np.full((1, 1, 1), probability), weight=1.0)
        >>> round(variance.result().item(), 3)
        0.04
    """

    def __init__(self, shape: tuple[int, int, int]):
        self._weight = np.zeros((shape[0], 1, 1), np.float32)
        self._mean, self._squares = np.zeros((2, *shape), np.float32)

    def add(self, index: np.ndarray, probability: np.ndarray, weight: float) -> None:
        """Update mean and squared deviations by one prediction.

        Args:
            index: Positions of its n tiles, int (n,), without repetition.
            probability: Probabilities in [0, 1], (n, H, W).
            weight: Weight of the prediction, above 0.
        """
        before = self._weight[index]
        self._weight[index] = before + np.float32(weight)
        part = np.float32(weight) / self._weight[index]
        apart = probability - self._mean[index]
        self._mean[index] += part * apart
        self._squares[index] += before * part * apart**2

    def result(self) -> np.ndarray:
        """Return the variance, float32 (N, H, W) in [0, 0.25]; 0 for tiles with a single prediction."""
        return self._squares / self._weight


def entropy(probability: np.ndarray) -> np.ndarray:
    """Return the binary entropy -p log₂ p - (1 - p) log₂ (1 - p) in bits, float32 in [0, 1].

    It is high where members disagree, and where each member is undecided.

    Args:
        probability: p, of any shape.

    Example:
        >>> entropy(np.array([0.0, 0.5])).tolist()
        [0.0, 1.0]
    """
    found = np.zeros(np.shape(probability), np.float64)
    for part in (np.asarray(probability, np.float64), 1 - np.asarray(probability, np.float64)):
        found -= part * np.log2(part, out=np.zeros_like(part), where=part > 0)
    return found.astype(np.float32)
