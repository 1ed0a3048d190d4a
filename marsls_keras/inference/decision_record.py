"""Pydantic models of decision.json, and the SHA-256 that shows whether the file was edited."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, create_model, model_validator

from marsls_keras.inference.decision_elements import ELEMENTS, Element, in_order
from marsls_keras.inference.purpose import Purpose
from marsls_keras.json_records import Digest, FoldName, Interval, Name, Number, Record, Scores


class _Reported(Record):
    """Base of models that are only reported; unknown keys, as of a later version, are allowed."""

    model_config = ConfigDict(extra="allow")


class Figures(_Reported):
    """Scores of masks, pooled over all tiles.

    Attributes:
        scores: Scores of the pooled counts.
        interval: 95 % interval of the mIoU; None where there is one block only.
        regions: Spread of the scores over regions (`marsls_keras.intervals.region_spread`); not set where folds are not
            regions, None where there is one region only.

    Example:
        >>> one = Scores(miou=1, iou_fg=1, iou_bg=1, f1=1, precision=1, recall=1)
        >>> Figures(scores=one, interval=[0.9, 1.0]).scores.miou
        1.0
    """

    scores: Scores
    interval: Interval | None
    regions: dict[str, Any] | None = None


class Baseline(Figures):
    """Scores of the plain decision.

    Attributes:
        views: Its set of views.
        threshold: Its threshold.

    Example:
        >>> one = Scores(miou=1, iou_fg=1, iou_bg=1, f1=1, precision=1, recall=1)
        >>> Baseline(scores=one, interval=None).threshold
        0.5
    """

    views: Name = "identity"
    threshold: float = 0.5


class Gain(_Reported):
    """Difference in pooled mIoU between two sets of masks of the same tiles.

    Attributes:
        miou: The difference.
        interval: Its paired 95 % interval; None where there is one block only.

    Example:
        >>> Gain(miou=0.01, interval=[-0.001, 0.02]).credible
        False
    """

    miou: float
    interval: Interval | None

    @property
    def credible(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.interval is not None and self.interval[0] > 0


class FoldChoice(_Reported):
    """Decision that was chosen on the other folds for one fold, and its mIoU on that fold.

    Attributes:
        fold: The fold.
        views: Its set of views; the values of the other elements are further keys.
        threshold: Its threshold.
        miou: Pooled mIoU of the fold's tiles.

    Example:
        >>> FoldChoice(fold=0, views="d4", threshold=0.45, miou=0.8, min_area=24).miou
        0.8
    """

    fold: Number
    views: Name
    threshold: float
    miou: float


class NestedFigures(Figures):
    """Scores of nested cross-validation: each fold is segmented with a decision that was chosen on the other folds.

    Attributes:
        per_fold: The decision of each fold.

    Example:
        >>> one = Scores(miou=1, iou_fg=1, iou_bg=1, f1=1, precision=1, recall=1)
        >>> NestedFigures(scores=one, interval=None).per_fold
        []
    """

    per_fold: list[FoldChoice] = []  # noqa: RUF012 - pydantic copies it


class ElementGain(_Reported):
    """Gain in mIoU by one element of the decision.

    Attributes:
        element: Its name.
        value: Its value; for an element that is kept, the value in the decision.
        gain: Its nested gain over the elements that were kept before it.
        alone: Its nested gain over the plain decision.
        kept: Whether the decision uses the element.

    Example:
        >>> nothing = Gain(miou=0.0, interval=None)
        >>> ElementGain(element="min_area", value=24, gain=nothing, alone=nothing, kept=False).kept
        False
    """

    element: Name
    value: str | bool | int | float | dict[str, float] | None
    gain: Gain
    alone: Gain
    kept: bool

    @property
    def title(self) -> str:
        """Title of the element in the report; its key if this version has no such element."""
        return ELEMENTS[self.element].title if self.element in ELEMENTS else self.element

    @property
    def cell(self) -> str:
        """Value as text for tables."""
        if self.element not in ELEMENTS:
            return str(self.value)
        element = ELEMENTS[self.element]
        return element.cell(element.from_json(self.value))


class ViewSetFigures(_Reported):
    """Best threshold of a set of views, and its mIoU on the tiles that it was chosen on.

    Attributes:
        threshold: The threshold.
        miou: Pooled mIoU.

    Example:
        >>> ViewSetFigures(threshold=0.45, miou=0.8).miou
        0.8
    """

    threshold: float
    miou: float


class Tuning(Record):
    """Results of tuning: all keys of decision.json except the values of the elements.

    Attributes:
        runs: Names of the runs that were tuned together.
        folds: Folds whose out-of-fold predictions were used.
        members: SHA-256 of the weights of each fold, by run and fold.
        purpose: What the decision is for; key "for". Files of earlier versions do not have the key: a decision that was
            tuned on isolated folds is for a region.
        isolated: Whether windows saw only the tiles of the same fold.
        expected: Expected scores on new tiles; None if they are unknown.
        baseline: Scores of the plain decision.
        nested: Scores of nested cross-validation; None where there is one fold only.
        gain: Gain of `nested` over `baseline`.
        tuned: Scores of the decision on the tiles that it was chosen on; optimistic for others.
        elements: Gain of each element.
        view_sets: Best threshold and mIoU of each candidate set of views.
        bias: Note on the bias of the gains of single elements.
        created: Time in UTC, ISO 8601.
        sha256: Digest of the rest of the file; None before it is written, and in files of earlier versions.

    Example:
        >>> Tuning(runs=["base"], folds=[0], members={"base": {"0": "ab" * 32}}).purpose
        <Purpose.PUBLISHED: 'published'>
    """

    runs: Annotated[list[Name], Field(min_length=1)]
    folds: Annotated[list[Number], Field(min_length=1)]
    members: dict[Name, dict[FoldName, Digest]]
    purpose: Annotated[Purpose, Field(alias="for", strict=False)] = Purpose.PUBLISHED
    isolated: bool = False
    expected: Figures | None = None
    baseline: Baseline | None = None
    nested: NestedFigures | None = None
    gain: Gain | None = None
    tuned: Figures | None = None
    elements: list[ElementGain] = []  # noqa: RUF012 - pydantic copies it
    view_sets: dict[Name, ViewSetFigures] = {}  # noqa: RUF012
    bias: str | None = None
    created: str = ""
    sha256: Digest | None = None

    remedy: ClassVar[str] = "Run marsls tune again."

    @model_validator(mode="before")
    @classmethod
    def _with_purpose(cls, value: Any) -> Any:
        if isinstance(value, dict) and "for" not in value:
            return {**value, "for": (Purpose.REGION if value.get("isolated") is True else Purpose.PUBLISHED).value}
        return value

    @model_validator(mode="after")
    def _agree(self) -> Tuning:
        if set(self.members) != set(self.runs):
            raise ValueError(
                f"members should be those of the runs {', '.join(self.runs)}, found {', '.join(self.members) or 'none'}"
            )
        folds = sorted(map(str, self.folds))
        if wrong := [run for run, digests in self.members.items() if sorted(digests) != folds]:
            raise ValueError(f"members.{wrong[0]} should have the weights of the folds {', '.join(folds)}")
        return self


class _DecisionFile(Tuning):
    """Base of the model of decision.json; the fields of the elements are added by `_form`."""

    @model_validator(mode="after")
    def _values_fit(self) -> _DecisionFile:
        for element in in_order():
            element.check(element.from_json(getattr(self, element.name)), self.runs)
        return self


def decision_form() -> type[Record]:
    """Return the pydantic model of decision.json: `Tuning` with a field for each registered element.

    Example:
        >>> "threshold" in decision_form().model_fields
        True
    """
    return _form(tuple(in_order()))


@lru_cache(maxsize=4)
def _form(elements: tuple[Element[Any], ...]) -> type[Record]:
    fields: dict[str, Any] = {
        element.name: (element.form, Field() if element.required else Field(default=element.default))
        for element in elements
    }
    return create_model("DecisionFile", __base__=_DecisionFile, **fields)


def digest_of(content: dict[str, Any]) -> str:
    """Return the SHA-256 of the content of decision.json without its key "sha256".

    Example:
        >>> digest_of({"threshold": 0.5, "sha256": "…"}) == digest_of({"threshold": 0.5})
        True
    """
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
