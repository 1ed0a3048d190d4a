"""Element of a decision: the threshold on the mean probability."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from marsls_keras.counts import BINS
from marsls_keras.inference.decision_elements.element import Candidates, Card, Element, register


class Threshold(Element[float]):
    """Least mean probability of a pixel that becomes landslide.

    Example:
        >>> THRESHOLD.text(0.45)
        'threshold 0.45'
    """

    name = "threshold"
    title = "threshold"
    default = 0.5
    form = Annotated[float, Field(gt=0, le=1)]
    place = 40
    turn = 10
    required = True
    always_said = True

    def offered(self, candidates: Candidates) -> bool:
        """Return whether folds are representative: the best threshold depends on the share of landslide."""
        return candidates.representative

    def options(self, candidates: Candidates) -> Iterable[float]:
        """Return the lower edges of the histogram bins, ascending, without 0, at which every pixel is landslide."""
        return (k / BINS for k in range(1, BINS))

    def text(self, value: float) -> str:
        """Return the threshold as part of a sentence."""
        return f"threshold {value:g}"

    def card(self, value: float) -> Card:
        """Return the card of a threshold in the report."""
        return Card("threshold", f"{value:.4g}", "on the probability")


THRESHOLD = register(Threshold())
