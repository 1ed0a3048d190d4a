"""Base class of the elements of a decision, and the registry of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

if TYPE_CHECKING:
    import optuna

Value = TypeVar("Value", bound=Hashable)
_Kind = TypeVar("_Kind", bound="Element[Any]")


@dataclass(frozen=True)
class Candidates:
    """What the values of a decision can be chosen from.

    Attributes:
        runs: Names of the runs, R of them.
        view_sets: Names of the candidate sets of views, the plain one first.
        representative: Whether the share of landslide in the folds is like that of the tiles to predict: for tiles
            among labelled ones, and where each fold is a region of its own. A threshold or an area that is chosen on
            other folds fits these alone.

    Example:
        >>> Candidates(runs=("base", "twin"), view_sets=("identity", "d4"))
        Candidates(runs=('base', 'twin'), view_sets=('identity', 'd4'), representative=True)
    """

    runs: tuple[str, ...]
    view_sets: tuple[str, ...]
    representative: bool = True


@dataclass(frozen=True)
class Card:
    """A value as the report shows it at the head of a run.

    Attributes:
        title: What it is.
        value: The value.
        note: What is written below, such as the unit.

    Example:
        >>> Card("threshold", "0.45", "on the probability").title
        'threshold'
    """

    title: str
    value: str
    note: str = ""


class Element(ABC, Generic[Value]):
    """One thing that a decision says, such as the threshold.

    A subclass is a file of this package, which registers its only instance. Search, decision.json, tables, report and
    text follow from it. Values are hashable. In decision.json, and as an argument of `Decision`, they have the form
    that `form` tells.

    Attributes:
        name: Key in decision.json, and name in tables.
        title: Name in the report.
        default: Value of the plain decision, as decision.json has it; also what is meant by a file of an earlier
            version without the key.
        form: Type of the value in decision.json, as pydantic checks it.
        place: Elements act, and are written and described, in this order.
        turn: The search adds elements to the plain decision in this order; None for one that is never searched by
            itself.
        required: Whether every decision.json has the key.
        averages: Whether it is one of the elements that make the mean probability, rather than the mask of it.
        always_said: Whether text and report name it even if it has the default value.

    Example:
        >>> from marsls_keras.inference.decision_elements import ELEMENTS
        >>> ELEMENTS["threshold"].default
        0.5
    """

    name: ClassVar[str]
    title: ClassVar[str]
    default: ClassVar[Any]
    form: ClassVar[Any]
    place: ClassVar[int]
    turn: ClassVar[int | None] = None
    required: ClassVar[bool] = False
    averages: ClassVar[bool] = False
    always_said: ClassVar[bool] = False

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.form, config=ConfigDict(allow_inf_nan=False, strict=True))

    def parse(self, value: Any) -> Value:
        """Return a value from the form that it has in decision.json.

        Raises:
            ValueError: If it has another form.
        """
        try:
            return self.from_json(self._adapter.validate_python(value))
        except ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise ValueError(f"{self.name}: {message}. Received: {value!r}") from None

    def from_json(self, value: Any) -> Value:
        """Return the value of a checked entry of decision.json."""
        return value

    def to_json(self, value: Value) -> Any:
        """Return a value as decision.json has it."""
        return value

    def check(self, value: Value, runs: Sequence[str]) -> None:
        """Refuse a value that does not fit the runs of a decision.

        Raises:
            ValueError: If it does not.
        """

    def is_plain(self, value: Value) -> bool:
        """Return whether a value is that of the plain decision."""
        return value == self.from_json(self.default)

    def is_said(self, value: Value) -> bool:
        """Return whether text and report name a value."""
        return self.always_said or not self.is_plain(value)

    def without_places(self, value: Value) -> tuple[Value, str | None]:
        """Return a value as it can be followed on tiles of unknown place, and what is then done instead, in words; None if the same."""
        return value, None

    def offered(self, candidates: Candidates) -> bool:
        """Return whether the search has a choice; False also where a choice would not carry over to other tiles."""
        return True

    def options(self, candidates: Candidates) -> Iterable[Any]:
        """Return the values to try, in the form of decision.json; among equals the first one wins."""
        return ()

    def cell(self, value: Value) -> str:
        """Return a value as tables show it."""
        return f"{value:g}" if isinstance(value, float) else str(value)

    @abstractmethod
    def text(self, value: Value) -> str:
        """Return a value as part of a sentence, such as "threshold 0.45"."""

    def card(self, value: Value) -> Card:
        """Return a value as the head of the report shows it."""
        return Card(self.title, self.cell(value))


class SuggestedElement(Element[Value]):
    """An element that may have more options than can be tried; then Optuna suggests some of them.

    Example:
        >>> from marsls_keras.inference.decision_elements.weights import WEIGHTS
        >>> isinstance(WEIGHTS, SuggestedElement)
        True
    """

    @abstractmethod
    def suggest(self, trial: optuna.Trial, candidates: Candidates) -> Any:
        """Return the option of a trial, in the form of decision.json."""

    @abstractmethod
    def first_trial(self, candidates: Candidates) -> Mapping[str, Any]:
        """Return the parameters of the trial to begin with."""


class MaskStep(Element[Value]):
    """An element that changes masks, after the threshold and after all steps before it.

    Example:
        >>> from marsls_keras.inference.decision_elements.min_area import MIN_AREA
        >>> speck = np.pad(np.ones((1, 1), bool), 1)
        >>> int(MIN_AREA.apply(2, speck, np.ones_like(speck), scale=1.0).sum())
        0
    """

    @abstractmethod
    def apply(self, value: Value, masks: np.ndarray, known: np.ndarray, scale: float) -> np.ndarray:
        """Return changed masks.

        Args:
            value: The value, not the plain one.
            masks: bool (N, H, W) or (H, W), of tiles or of a picture.
            known: bool of the same shape, False where there is no tile and the masks are False.
            scale: Area of one pixel that the networks saw, in pixels of the masks.

        Returns:
            bool, of the same shape.
        """


ELEMENTS: dict[str, Element[Any]] = {}
"""All elements by name, as they were registered; `in_order` and `searched` sort them."""


def register(element: _Kind) -> _Kind:
    """Add an element to the registry and return it.

    Raises:
        ValueError: If there is one of this name.

    Example:
        >>> from marsls_keras.inference.decision_elements.threshold import THRESHOLD
        >>> ELEMENTS["threshold"] is THRESHOLD
        True
    """
    if element.name in ELEMENTS:
        raise ValueError(f"There is an element of a decision of this name. Received: {element.name}")
    ELEMENTS[element.name] = element
    return element


def in_order() -> list[Element[Any]]:
    """Return all elements in the order in which they act.

    Example:
        >>> [element.name for element in in_order()][:2]
        ['views', 'weights']
    """
    return sorted(ELEMENTS.values(), key=lambda element: element.place)


def searched(candidates: Candidates) -> list[Element[Any]]:
    """Return the elements that are offered a search, in the order in which it adds them.

    Example:
        >>> [element.name for element in searched(Candidates(("base",), ("identity",)))]
        ['threshold', 'min_area', 'max_hole']
    """
    known = [(element.turn, element) for element in ELEMENTS.values() if element.turn is not None]
    return [element for _, element in sorted(known, key=lambda pair: pair[0]) if element.offered(candidates)]
