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
"""Weights that are tried are multiples of 1 / TENTHS."""

RunWeights = tuple[tuple[str, float], ...] | None
"""(name, weight) of each run; None for equal weights, whatever the runs are."""


class Weights(SuggestedElement[RunWeights]):
    """Weight of each run's mean in that of the ensemble, by the name of the run.

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
        """Return weights as pairs."""
        return None if value is None else tuple((run, float(weight)) for run, weight in value.items())

    def to_json(self, value: RunWeights) -> dict[str, float] | None:
        """Return weights by run."""
        return None if value is None else dict(value)

    def check(self, value: RunWeights, runs: Sequence[str]) -> None:
        """Refuse weights of other runs than those of the decision, or that are all 0.

        Raises:
            ValueError: If they are.
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
        """Return all weights in tenths that add up to 1."""
        return (dict(zip(candidates.runs, weights, strict=True)) for weights in simplex(len(candidates.runs)))

    def suggest(self, trial: optuna.Trial, candidates: Candidates) -> dict[str, float]:
        """Return the weights of a trial, from one whole number for each run."""
        parts = [trial.suggest_int(run, 0, TENTHS) for run in candidates.runs]
        return dict(zip(candidates.runs, in_tenths(parts), strict=True))

    def first_trial(self, candidates: Candidates) -> dict[str, int]:
        """Return equal parts."""
        return dict.fromkeys(candidates.runs, 1)

    def cell(self, value: RunWeights) -> str:
        """Return the weights as tables show them."""
        return "equal" if value is None else ", ".join(f"{run} {weight:g}" for run, weight in value)

    def text(self, value: RunWeights) -> str:
        """Return the weights as part of a sentence."""
        return f"weights {self.cell(value)}"


def equal_weights(runs: Sequence[str]) -> dict[str, float]:
    """Return equal weights of runs, which add up to 1.

    Example:
        >>> equal_weights(["base", "twin"])
        {'base': 0.5, 'twin': 0.5}
    """
    return dict.fromkeys(runs, 1 / len(runs))


def simplex(number: int) -> Iterator[tuple[float, ...]]:
    """Yield all weights of a number of runs in tenths that add up to 1.

    Example:
        >>> list(simplex(2))[3]
        (0.3, 0.7)
    """
    for bars in combinations(range(TENTHS + number - 1), number - 1):
        cuts = (-1, *bars, TENTHS + number - 1)
        yield tuple((right - left - 1) / TENTHS for left, right in zip(cuts, cuts[1:], strict=False))


def in_tenths(parts: Sequence[int]) -> tuple[float, ...]:
    """Return parts as weights in tenths that add up to 1; equal ones if all parts are 0.

    They are rounded down, and what is left goes to those that lost most (largest remainders).

    Example:
        >>> in_tenths([1, 1, 1])
        (0.4, 0.3, 0.3)
    """
    exact = np.array(parts if any(parts) else [1] * len(parts)) * TENTHS / (sum(parts) or len(parts))
    tenths = np.floor(exact)
    tenths[np.argsort(tenths - exact, kind="stable")[: TENTHS - int(tenths.sum())]] += 1
    return tuple((tenths / TENTHS).tolist())


WEIGHTS = register(Weights())
