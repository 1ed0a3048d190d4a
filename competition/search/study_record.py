"""Schema of study.json, which `competition.search.study_files` writes for the report."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from marsls_keras.json_records import Name, Number, Record, Share

_Value = str | int | float | bool | None


class _Axis(Record):
    """The range of numbers, or the choices, that are tried for a key."""

    low: float | None = None
    high: float | None = None
    log: bool | None = None
    choices: Annotated[list[_Value], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> _Axis:
        ends = (self.low, self.high, self.log)
        if all(end is None for end in ends) == (self.choices is None) or (self.choices is None and None in ends):
            raise ValueError("expected low, high and log, or choices")
        if self.low is not None and self.high is not None and (self.low >= self.high or (self.log and self.low <= 0)):
            raise ValueError("low should be below high, and above 0 where log is true")
        return self


class _Trial(Record):
    number: Number
    state: Literal["running", "waiting", "complete", "pruned", "fail"]
    miou: Share | None
    epochs: Number
    last_miou: Share | None
    seconds: Annotated[float, Field(ge=0)] | None
    reason: str | None
    parameters: dict[Name, _Value]


class StudyRecord(Record):
    """Validated content of study.json.

    Example:
        >>> from marsls_keras.json_records import read_record
        >>> read_record("runs/unet/search/study.json", StudyRecord)["trials"][0]["state"]  # doctest: +SKIP
        'complete'
    """

    name: Name
    folds: list[Number]
    keys: dict[Name, _Axis]
    importance: dict[Name, Share]
    trials: list[_Trial]

    remedy: ClassVar[str] = (
        "The same marsls search writes it anew from the study; without it, the report has no search."
    )

    @model_validator(mode="after")
    def _known(self) -> StudyRecord:
        for trial in self.trials:
            for key, value in trial.parameters.items():
                axis = self.keys.get(key)
                if axis is None:
                    raise ValueError(
                        f"trial {trial.number} should have the keys {', '.join(self.keys)} alone, found {key}"
                    )
                if axis.choices is not None:
                    possible = value in axis.choices
                else:
                    possible = (
                        isinstance(value, int | float) and not isinstance(value, bool) and (value > 0 or not axis.log)
                    )
                if not possible:
                    raise ValueError(f"trial {trial.number}: {key} should be one of what is tried, found {value!r}")
        return self
