"""Means of predictions: of probabilities or of their logits, over views and members, with weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

AVERAGINGS = ("probability", "logit")
"""What is averaged. The mean of logits is the geometric mean of the odds: a member that is sure counts for more than one that is not."""

_LEAST = np.float32(2.0**-11)
"""Half precision, in which predictions are cached, knows nothing between 1 - 2^-11 and 1; beyond it a logit would be made up."""


def spread(probability: np.ndarray, averaging: str) -> np.ndarray:
    """Return what is averaged, float32: the probabilities themselves, or their logits, bounded to ±7.6."""
    probability = probability.astype(np.float32, copy=False)
    if averaging == "probability":
        return probability
    probability = np.clip(probability, _LEAST, 1 - _LEAST)
    return np.log(probability / (1 - probability))


def gather(mean: np.ndarray, averaging: str) -> np.ndarray:
    """Return the probability of a mean of what `spread` gave, float32."""
    return mean if averaging == "probability" else np.float32(1) / (1 + np.exp(-mean))


def shares(weights: Mapping[str, float] | None, runs: Sequence[str]) -> dict[str, float]:
    """Return the weight of each run, those of weight 0 left out; equal weights if none are given. They add up to 1."""
    each = {run: 1.0 if weights is None else float(weights[run]) for run in runs}
    return {run: weight / sum(each.values()) for run, weight in each.items() if weight > 0}
