"""Base class and registry of the elements of a decision."""

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
    """Runs and sets of views among which the search for a decision chooses.

    Attributes:
        runs: Names of the runs, R of them.
        view_sets: Names of the candidate sets of views, the plain one first.
        representative: Whether the share of landslide in the folds is similar to that of the tiles to predict: for
            tiles among labelled ones, and where each fold is a region of its own. On other folds a tuned threshold or
            area would not carry over to new tiles.

    Example:
        >>> Candidates(runs=("base", "twin"), view_sets=("identity", "d4"))
        Candidates(runs=('base', 'twin'), view_sets=('identity', 'd4'), representative=True)
    """

    runs: tuple[str, ...]
    view_sets: tuple[str, ...]
    representative: bool = True


@dataclass(frozen=True)
class Card:
    """Value of an element as a card at the head of a run in the report.

    Attributes:
        title: Heading.
        value: The value.
        note: Text below the value, such as the unit.

    Example:
        >>> Card("threshold", "0.45", "on the probability").title
        'threshold'
    """

    title: str
    value: str
    note: str = ""


class Element(ABC, Generic[Value]):
    """One parameter of a decision, such as the threshold.

    Each subclass is a file of this package, which registers its only instance. The search, decision.json, tables, the
    report and descriptions are derived from these classes. Values are hashable. In decision.json, and as an argument of
    `Decision`, they have the type `form`.

    Attributes:
        name: Key in decision.json, and name in tables.
        title: Name in the report.
        default: Value of the plain decision, in the form of decision.json; also assumed for a file of an earlier
            version without the key.
        form: Type of the value in decision.json, as pydantic checks it.
        place: Sort key of the order in which elements are applied, written and described.
        turn: Sort key of the order in which the search adds elements to the plain decision; None for an element that is
            not searched.
        required: Whether decision.json must have the key.
        averages: Whether the element determines the mean probability, rather than the mask made of it.
        always_said: Whether descriptions and the report name it even with the default value.

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
        """Check an entry of decision.json and convert it to a value.

        Raises:
            ValueError: If it is not of the type `form`.
        """
        try:
            return self.from_json(self._adapter.validate_python(value))
        except ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise ValueError(f"{self.name}: {message}. Received: {value!r}") from None

    def from_json(self, value: Any) -> Value:
        """Convert a checked entry of decision.json to a value."""
        return value

    def to_json(self, value: Value) -> Any:
        """Convert a value to an entry of decision.json."""
        return value

    def check(self, value: Value, runs: Sequence[str]) -> None:
        """Check that a value fits the runs of a decision; the base class accepts all.

        Raises:
            ValueError: If it does not fit.
        """

    def is_plain(self, value: Value) -> bool:
        """Return whether a value is that of the plain decision."""
        return value == self.from_json(self.default)

    def is_said(self, value: Value) -> bool:
        """Return whether descriptions and the report name a value."""
        return self.always_said or not self.is_plain(value)

    def without_places(self, value: Value) -> tuple[Value, str | None]:
        """Return the value to use on tiles of unknown position, and a note on the difference, None if there is none."""
        return value, None

    def offered(self, candidates: Candidates) -> bool:
        """Return whether the search may choose a value; False also where a choice would not carry over to new tiles."""
        return True

    def options(self, candidates: Candidates) -> Iterable[Any]:
        """Return the values to try, in the form of decision.json; the first wins among equal scores."""
        return ()

    def cell(self, value: Value) -> str:
        """Return a value as text for tables."""
        return f"{value:g}" if isinstance(value, float) else str(value)

    @abstractmethod
    def text(self, value: Value) -> str:
        """Return a value as part of a sentence, such as "threshold 0.45"."""

    def card(self, value: Value) -> Card:
        """Return the card of a value in the report."""
        return Card(self.title, self.cell(value))


class SuggestedElement(Element[Value]):
    """Element whose options may be too many to try all; Optuna then suggests some of them.

    Example:
        >>> from marsls_keras.inference.decision_elements.weights import WEIGHTS
        >>> isinstance(WEIGHTS, SuggestedElement)
        True
    """

    @abstractmethod
    def suggest(self, trial: optuna.Trial, candidates: Candidates) -> Any:
        """Return the option of an Optuna trial, in the form of decision.json."""

    @abstractmethod
    def first_trial(self, candidates: Candidates) -> Mapping[str, Any]:
        """Return the parameters of the first Optuna trial."""


class MaskStep(Element[Value]):
    """Element that post-processes masks, after the threshold and all earlier steps.

    Example:
        >>> from marsls_keras.inference.decision_elements.min_area import MIN_AREA
        >>> speck = np.pad(np.ones((1, 1), bool), 1)
        >>> int(MIN_AREA.apply(2, speck, np.ones_like(speck), scale=1.0).sum())
        0
    """

    @abstractmethod
    def apply(self, value: Value, masks: np.ndarray, known: np.ndarray, scale: float) -> np.ndarray:
        """Return post-processed masks.

        Args:
            value: The value, not the plain one.
            masks: bool (N, H, W) or (H, W), of tiles or of a raster.
            known: bool of the same shape, False where there is no tile and the masks are False.
            scale: Area of one pixel of the network's input, in pixels of the masks.

        Returns:
            bool, of the same shape.
        """


ELEMENTS: dict[str, Element[Any]] = {}
"""All elements by name, in order of registration; `in_order` and `searched` sort them."""


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
    """Return all elements in the order in which they are applied.

    Example:
        >>> [element.name for element in in_order()][:2]
        ['views', 'weights']
    """
    return sorted(ELEMENTS.values(), key=lambda element: element.place)


def searched(candidates: Candidates) -> list[Element[Any]]:
    """Return the elements that the search may choose, in the order in which it adds them.

    Example:
        >>> [element.name for element in searched(Candidates(("base",), ("identity",)))]
        ['threshold', 'min_area', 'max_hole']
    """
    known = [(element.turn, element) for element in ELEMENTS.values() if element.turn is not None]
    return [element for _, element in sorted(known, key=lambda pair: pair[0]) if element.offered(candidates)]
