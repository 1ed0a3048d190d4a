"""Element of a decision: the weights of the runs of an ensemble."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from marsls_keras.config.section import Probability
from marsls_keras.inference.decision_elements.element import Candidates, SuggestedElement, register
from marsls_keras.json_records import Name

if TYPE_CHECKING:
    import optuna

TENTHS = 10
"""Candidate weights are multiples of 1 / TENTHS."""

RunWeights = tuple[tuple[str, float], ...] | None
"""(name, weight) of each run; None for equal weights of any runs."""


class Weights(SuggestedElement[RunWeights]):
    """Weight of each run in the mean of the ensemble, by the name of the run.

    Example:
        >>> WEIGHTS.text(WEIGHTS.parse({"base": 0.7, "twin": 0.3}))
        'weights base 0.7, twin 0.3'
    """

    name = "weights"
    title = "weights of the runs"
    default = None
    form = dict[Name, Probability] | None
    place = 20
    turn = 30
    averages = True

    def from_json(self, value: Mapping[str, float] | None) -> RunWeights:
        """Convert weights by run name to pairs of name and weight."""
        return None if value is None else tuple((run, float(weight)) for run, weight in value.items())

    def to_json(self, value: RunWeights) -> dict[str, float] | None:
        """Convert pairs of name and weight to weights by run name."""
        return None if value is None else dict(value)

    def check(self, value: RunWeights, runs: Sequence[str]) -> None:
        """Check that each run of the decision has a weight, and that not all weights are 0.

        Raises:
            ValueError: If a check fails.
        """
        if value is not None and ({run for run, _ in value} != set(runs) or sum(weight for _, weight in value) <= 0):
            raise ValueError(f"weights should have one of each of the runs {', '.join(runs)}, and not all of them 0")

    def is_plain(self, value: RunWeights) -> bool:
        """Return whether all weights are equal."""
        return value is None or len({weight for _, weight in value}) < 2

    def offered(self, candidates: Candidates) -> bool:
        """Return whether there are several runs."""
        return len(candidates.runs) > 1

    def options(self, candidates: Candidates) -> Iterable[dict[str, float]]:
        """Return all weights in tenths with sum 1."""
        return (dict(zip(candidates.runs, weights, strict=True)) for weights in simplex(len(candidates.runs)))

    def suggest(self, trial: optuna.Trial, candidates: Candidates) -> dict[str, float]:
        """Return the weights of an Optuna trial, in proportion to one suggested integer per run; see `in_tenths`."""
        parts = [trial.suggest_int(run, 0, TENTHS) for run in candidates.runs]
        return dict(zip(candidates.runs, in_tenths(parts), strict=True))

    def first_trial(self, candidates: Candidates) -> dict[str, int]:
        """Return the parameters of equal weights."""
        return dict.fromkeys(candidates.runs, 1)

    def cell(self, value: RunWeights) -> str:
        """Return the weights as text for tables."""
        return "equal" if value is None else ", ".join(f"{run} {weight:g}" for run, weight in value)

    def text(self, value: RunWeights) -> str:
        """Return the weights as part of a sentence."""
        return f"weights {self.cell(value)}"


def equal_weights(runs: Sequence[str]) -> dict[str, float]:
    """Return equal weights of runs with sum 1.

    Example:
        >>> equal_weights(["base", "twin"])
        {'base': 0.5, 'twin': 0.5}
    """
    return dict.fromkeys(runs, 1 / len(runs))


def simplex(number: int) -> Iterator[tuple[float, ...]]:
    """Yield all weights in tenths with sum 1 for a number of runs.

    Example:
        >>> list(simplex(2))[3]
        (0.3, 0.7)
    """
    for bars in combinations(range(TENTHS + number - 1), number - 1):
        cuts = (-1, *bars, TENTHS + number - 1)
        yield tuple((right - left - 1) / TENTHS for left, right in zip(cuts, cuts[1:], strict=False))


def in_tenths(parts: Sequence[int]) -> tuple[float, ...]:
    """Round proportions to weights in tenths with sum 1, by the method of largest remainders.

    If all parts are 0, the weights are those of equal parts.

    Example:
        >>> in_tenths([1, 1, 1])
        (0.4, 0.3, 0.3)
    """
    exact = np.array(parts if any(parts) else [1] * len(parts)) * TENTHS / (sum(parts) or len(parts))
    tenths = np.floor(exact)
    tenths[np.argsort(tenths - exact, kind="stable")[: TENTHS - int(tenths.sum())]] += 1
    return tuple((tenths / TENTHS).tolist())


WEIGHTS = register(Weights())
