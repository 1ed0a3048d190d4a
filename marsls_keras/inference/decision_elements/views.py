"""Element of a decision: the set of views for test-time augmentation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator

from marsls_keras.errors import InputError
from marsls_keras.inference.decision_elements.element import Candidates, Card, Element, register
from marsls_keras.view_sets import of_windows, views_of


def _known(name: str) -> str:
    try:
        views_of(name)
    except InputError as error:
        raise ValueError(str(error)) from None
    return name


class Views(Element[str]):
    """Name of the set of test-time augmentation views that are averaged (`marsls_keras.view_sets`).

    Example:
        >>> VIEWS.without_places("d4@256")
        ('d4', 'views d4 of single tiles instead of d4@256')
    """

    name = "views"
    title = "views"
    default = "identity"
    form = Annotated[str, AfterValidator(_known)]
    place = 10
    turn = 20
    required = True
    averages = True
    always_said = True

    def without_places(self, value: str) -> tuple[str, str | None]:
        """Return views of single tiles instead of windows, which need the neighbours of a tile; see `Element`."""
        if not of_windows(value):
            return value, None
        single = value.partition("@")[0]
        return single, f"views {single} of single tiles instead of {value}"

    def offered(self, candidates: Candidates) -> bool:
        """Return whether there are several candidate sets."""
        return len(candidates.view_sets) > 1

    def options(self, candidates: Candidates) -> Iterable[str]:
        """Return the candidate sets."""
        return candidates.view_sets

    def text(self, value: str) -> str:
        """Return the set as part of a sentence."""
        return f"views {value}"

    def card(self, value: str) -> Card:
        """Return the card of a set in the report."""
        return Card("views", value, "averaged")


VIEWS = register(Views())
