"""Base models, shared field types and validation of the JSON files of runs, decisions and submissions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from marsls_keras import __version__
from marsls_keras.counts import Counts
from marsls_keras.errors import InputError, listing
from marsls_keras.files import read_json

Share = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[int, Field(ge=0, lt=2**53)]
"""Count; JSON readers that use double precision round integers above 2^53."""
Positive = Annotated[int, Field(ge=1, lt=2**53)]
Name = Annotated[str, Field(min_length=1)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 as 64 hexadecimal digits."""
Interval = Annotated[list[float], Field(min_length=2, max_length=2)]


def _numbered(name: str) -> str:
    if not (name.isascii() and name.isdecimal() and str(int(name[:9])) == name):
        raise ValueError("the keys should be numbers of folds")
    return name


FoldName = Annotated[str, AfterValidator(_numbered)]
"""Number of a fold as a key of JSON."""


class Record(BaseModel):
    """Base of the pydantic models of JSON files and their parts: strict, frozen, no unknown keys, no NaN.

    Attributes:
        remedy: Advice at the end of the error message about an invalid file.

    Example:
        >>> class Normalization(Record):
        ...     mean: float
        ...     std: float
        >>> Normalization(mean=0.5, std=0.25).std
        0.25
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())

    remedy: ClassVar[str] = "Restore the file from a copy."


class Scores(Record):
    """Scores from `Counts.scores`.

    Example:
        >>> Scores(**Counts(tp=1, fp=0, fn=1, tn=2).scores()).recall
        0.5
    """

    miou: Share
    iou_fg: Share
    iou_bg: Share
    f1: Share
    precision: Share
    recall: Share


class Confusion(Record):
    """Confusion counts pooled over all pixels.

    Example:
        >>> Confusion(tp=1, fp=0, fn=1, tn=2).tp
        1
    """

    tp: Number
    fp: Number
    fn: Number
    tn: Number


class Scored(Record):
    """Scores with the confusion counts they are computed from; both are null where nothing was held out.

    Scores must agree with the counts.

    Example:
        >>> counts = Counts(tp=1, fp=0, fn=1, tn=2)
        >>> Scored(scores=Scores(**counts.scores()), counts=Confusion(**vars(counts))).scores.recall
        0.5
        >>> Scored(scores=None, counts=None).counts is None
        True
    """

    scores: Scores | None
    counts: Confusion | None

    @model_validator(mode="after")
    def _agree(self) -> Scored:
        if (self.scores is None) != (self.counts is None):
            raise ValueError("scores and counts should both be there, or both be null")
        if self.scores is not None and self.counts is not None:
            for name, value in Counts(**self.counts.model_dump()).scores().items():
                if abs(getattr(self.scores, name) - value) > 1e-6:
                    raise ValueError(f"scores.{name} is {getattr(self.scores, name):g}, but the counts give {value:g}")
        return self


def read_record(path: str | Path, kind: type[Record]) -> Any:
    """Read a JSON file and validate it against a model; return the plain JSON value.

    Args:
        path: The file.
        kind: The model of its content.

    Raises:
        InputError: If the file is missing, damaged (see `read_json`), or does not fit the model; every wrong key is
            named, with what was expected and found.

    Example:
        >>> _ = Path("counts.json").write_text('{"tp": 1, "fp": 0, "fn": -1}')
        >>> read_record("counts.json", Confusion)
        Traceback (most recent call last):
            ...
        marsls_keras.errors.InputError: counts.json is damaged, was edited, or is of another version:
          - fn: expected greater than or equal to 0, found -1
          - tn: the key is missing
        Restore the file from a copy.
    """
    value = read_json(path)
    require_record(value, kind, path)
    return value


def require_record(value: Any, kind: type[Record], path: str | Path) -> None:
    """Validate a JSON value that was read from `path` against a model.

    Raises:
        InputError: If it does not fit; every wrong key is named.

    Example:
        >>> require_record({"tp": 1, "fp": 0, "fn": 1, "tn": 2}, Confusion, "counts.json")
    """
    try:
        kind.model_validate(value)
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        newer = (
            " A newer version may have written it: update marsls-keras."
            if any(e["type"] == "extra_forbidden" for e in wrong)
            else ""
        )
        told = list(dict.fromkeys(map(_explain, wrong)))
        raise InputError(
            f"{path} is damaged, was edited, or is of another version:{listing(told)}\n{kind.remedy}{newer}"
        ) from None


def _explain(error: Any) -> str:
    """Format one pydantic error as "key: expected …, found …"."""
    place = ".".join(str(part) for part in error["loc"]) or "the whole file"
    if error["type"] == "missing":
        return f"{place}: the key is missing"
    if error["type"] == "extra_forbidden":
        return f"{place}: version {__version__} does not know this key"
    if error["type"] in ("model_type", "model_attributes_type"):
        message = "expected keys and values"
    else:
        message = error["msg"].removeprefix("Value error, ").replace("Input should be ", "expected ")
    found = json.dumps(error["input"], ensure_ascii=False, default=str)
    # A long value, such as the whole section that a rule over several keys refuses, would bury the message.
    return f"{place}: {message}" if len(found) > 80 else f"{place}: {message}, found {found}"
