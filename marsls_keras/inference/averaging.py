"""Average predictions over views and members, as probabilities or as logits, with weights of the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

AVERAGINGS = ("probability", "logit")
"""What is averaged. The mean of logits is the geometric mean of the odds: a member that is sure counts for more than one that is not."""

_LEAST = np.float32(2.0**-11)
"""Half precision, in which predictions are cached, knows nothing between 1 - 2^-11 and 1; beyond it a logit would be made up."""


def spread(probability: np.ndarray, averaging: str) -> np.ndarray:
    """Return what is averaged, float32: the probabilities themselves, or their logits, bounded to ±7.6.

    Args:
        probability: Probabilities in [0, 1], of any shape.
        averaging: "probability" or "logit".

    Example:
        >>> spread(np.array([0.5, 1.0]), "logit").round(1).astype(str).tolist()
        ['0.0', '7.6']
    """
    probability = probability.astype(np.float32, copy=False)
    if averaging == "probability":
        return probability
    probability = np.clip(probability, _LEAST, 1 - _LEAST)
    logits: np.ndarray = np.log(probability / (1 - probability))
    return logits


def gather(mean: np.ndarray, averaging: str) -> np.ndarray:
    """Return the probabilities of a mean of what `spread` gave, float32, of the same shape.

    Example:
        >>> float(gather(np.float32(0.0), "logit"))
        0.5
    """
    return mean if averaging == "probability" else np.float32(1) / (1 + np.exp(-mean))


def shares(run_weights: Mapping[str, float] | None, runs: Sequence[str]) -> dict[str, float]:
    """Return the weight of each run, without those of weight 0; equal weights if none are given. They add up to 1.

    Example:
        >>> shares({"base": 3.0, "twin": 1.0, "old": 0.0}, ["base", "twin", "old"])
        {'base': 0.75, 'twin': 0.25}
    """
    each = {run: 1.0 if run_weights is None else float(run_weights[run]) for run in runs}
    return {run: weight / sum(each.values()) for run, weight in each.items() if weight > 0}
