"""The form of decision.json, and the digest that tells whether it is still what `marsls tune` wrote."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from marsls_keras.config.section import Probability
from marsls_keras.errors import InputError
from marsls_keras.json_records import Digest, FoldName, Interval, Name, Number, Record, Scores, read_record
from marsls_keras.view_sets import views_of

_Pixels = Annotated[int, Field(ge=0, lt=2**31)]


def _views(name: str) -> str:
    try:
        views_of(name)
    except InputError as error:
        raise ValueError(str(error)) from None
    return name


_Views = Annotated[str, AfterValidator(_views)]


class _Figures(Record):
    """Base of what is only reported: it may hold more than this version knows."""

    model_config = ConfigDict(extra="allow")


class _Summary(_Figures):
    scores: Scores
    interval: Interval | None


class _Gain(_Figures):
    miou: float
    interval: Interval | None


class _PerFold(_Figures):
    fold: Number
    views: Name
    threshold: float
    miou: float


class _Nested(_Summary):
    per_fold: list[_PerFold] = []  # noqa: RUF012 - pydantic copies it


class _Element(_Figures):
    element: Name
    value: str | float | dict[str, float] | None
    gain: _Gain
    alone: _Gain
    kept: bool


class _ViewSet(_Figures):
    threshold: float
    miou: float


class DecisionRecord(Record):
    """The form of decision.json; see `marsls_keras.tuning.nested_search.decide`.

    Keys that earlier versions did not write have the values they meant.
    """

    runs: Annotated[list[Name], Field(min_length=1)]
    folds: Annotated[list[Number], Field(min_length=1)]
    members: dict[Name, dict[FoldName, Digest]]
    purpose: Literal["region", "published"] = Field("published", alias="for")
    isolated: bool = False
    views: _Views
    weights: dict[Name, Probability] | None = None
    averaging: Literal["probability", "logit"] = "probability"
    threshold: Annotated[float, Field(gt=0, le=1)]
    max_hole: _Pixels = 0
    min_area: _Pixels = 0
    across_borders: bool = False
    expected: _Summary | None = None
    baseline: _Summary | None = None
    nested: _Nested | None = None
    gain: _Gain | None = None
    tuned: _Summary | None = None
    elements: list[_Element] = []  # noqa: RUF012 - pydantic copies it
    view_sets: dict[Name, _ViewSet] = {}  # noqa: RUF012
    bias: str | None = None
    created: str = ""
    sha256: Digest | None = None

    remedy: ClassVar[str] = "Run marsls tune again."

    @model_validator(mode="after")
    def _agree(self) -> DecisionRecord:
        if set(self.members) != set(self.runs):
            raise ValueError(f"members should be those of the runs {', '.join(self.runs)}, found {', '.join(self.members) or 'none'}")
        folds = sorted(map(str, self.folds))
        if wrong := [run for run, digests in self.members.items() if sorted(digests) != folds]:
            raise ValueError(f"members.{wrong[0]} should have the weights of the folds {', '.join(folds)}")
        if self.weights is not None and (set(self.weights) != set(self.runs) or sum(self.weights.values()) <= 0):
            raise ValueError(f"weights should have one of each of the runs {', '.join(self.runs)}, and not all of them 0")
        return self


def sealed(decision: dict[str, Any]) -> dict[str, Any]:
    """Return a decision with the SHA-256 of what it says as "sha256"."""
    return {**decision, "sha256": _digest(decision)}


def read_decision_file(path: Path) -> dict[str, Any]:
    """Return the content of a decision.json.

    Raises:
        InputError: If it is damaged, not of the form, or was edited since it was sealed: the scores in it would be those of another one.
    """
    decision: dict[str, Any] = read_record(path, DecisionRecord)
    if decision.get("sha256") not in (None, _digest(decision)):  # earlier versions did not seal it
        raise InputError(
            f"{path} was edited or damaged since marsls tune wrote it, so the scores in it are not those of this decision. Run marsls tune "
            "again; or, if it is meant so, remove its key sha256."
        )
    return decision


def _digest(decision: dict[str, Any]) -> str:
    content = {key: value for key, value in decision.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
