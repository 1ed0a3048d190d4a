"""Average predictions over views and ensemble members, as probabilities or as logits, with a weight per run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

AVERAGINGS = ("probability", "logit")
"""Quantities that can be averaged.

The mean of logits is the geometric mean of the odds: a confident member counts for more than an undecided one.
"""

_LEAST = np.float32(2.0**-11)
"""Logits are taken of probabilities in [2^-11, 1 - 2^-11].

Predictions are cached in half precision, which has no value between 1 - 2^-11 and 1.
"""


def spread(probability: np.ndarray, averaging: str) -> np.ndarray:
    """Convert probabilities to the quantity that is averaged, float32: probabilities, or logits bounded to ±7.6.

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
    """Convert a mean of results of `spread` back to probabilities, float32.

    Args:
        mean: Mean of the quantity that `averaging` names, float32, of any shape.
        averaging: "probability" or "logit".

    Example:
        >>> float(gather(np.float32(0.0), "logit"))
        0.5
    """
    return mean if averaging == "probability" else np.float32(1) / (1 + np.exp(-mean))


def shares(run_weights: Mapping[str, float] | None, runs: Sequence[str]) -> dict[str, float]:
    """Return the weights of runs, normalised to sum 1.

    Runs of weight 0 are left out. Without `run_weights` all weights are equal.

    Example:
        >>> shares({"base": 3.0, "twin": 1.0, "old": 0.0}, ["base", "twin", "old"])
        {'base': 0.75, 'twin': 0.25}
    """
    each = {run: 1.0 if run_weights is None else float(run_weights[run]) for run in runs}
    return {run: weight / sum(each.values()) for run, weight in each.items() if weight > 0}
