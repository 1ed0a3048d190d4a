"""Element of a decision: the quantity that is averaged over views and members."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from marsls_keras.inference.averaging import AVERAGINGS
from marsls_keras.inference.decision_elements.element import Candidates, Element, register
from marsls_keras.view_sets import views_of


class Averaging(Element[str]):
    """Quantity that is averaged, probabilities or logits (`marsls_keras.inference.averaging`).

    Example:
        >>> AVERAGING.text("logit")
        'mean of logits'
    """

    name = "averaging"
    title = "what is averaged"
    default = "probability"
    form = Literal["probability", "logit"]
    place = 30
    turn = 40
    averages = True

    def offered(self, candidates: Candidates) -> bool:
        """Return whether there is anything to average: several runs, or a set of several views."""
        return len(candidates.runs) > 1 or any(len(views_of(name)) > 1 for name in candidates.view_sets)

    def options(self, candidates: Candidates) -> Iterable[str]:
        """Return "probability" and "logit"."""
        return AVERAGINGS

    def text(self, value: str) -> str:
        """Return the kind of mean as part of a sentence."""
        return "mean of logits" if value == "logit" else "mean of probabilities"


AVERAGING = register(Averaging())
