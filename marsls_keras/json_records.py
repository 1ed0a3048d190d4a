"""JSON files that commands read again: what their models, one for each kind of file, have in common, and errors that name the key."""

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
"""A whole number that counts something; beyond 2^53 JSON's readers do not agree on it."""
Positive = Annotated[int, Field(ge=1, lt=2**53)]
Name = Annotated[str, Field(min_length=1)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256."""
Interval = Annotated[list[float], Field(min_length=2, max_length=2)]


def _numbered(name: str) -> str:
    if not (name.isascii() and name.isdecimal() and str(int(name[:9])) == name):
        raise ValueError("the keys should be numbers of folds")
    return name


FoldName = Annotated[str, AfterValidator(_numbered)]
"""Number of a fold as a key of JSON."""


class Record(BaseModel):
    """Base of the models of JSON files and of their parts: strict about keys and types, without NaN.

    Attributes:
        remedy: What to do where a file is not of this form.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())

    remedy: ClassVar[str] = "Restore the file from a copy."


class Scores(Record):
    """Scores of a confusion count, as `Counts.scores` gives them."""

    miou: Share
    iou_fg: Share
    iou_bg: Share
    f1: Share
    precision: Share
    recall: Share


class Confusion(Record):
    """A confusion count over all pixels."""

    tp: Number
    fp: Number
    fn: Number
    tn: Number


class Scored(Record):
    """Scores and the counts that they are computed from, which have to agree; both are null where nothing was held out."""

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
    """Return the content of a JSON file, as JSON has it, after checking that it has the form of its kind.

    Raises:
        InputError: If the file is missing, damaged (see `read_json`), or not of this form; every key that is wrong is named, with what was
            expected and found.
    """
    value = read_json(path)
    require_record(value, kind, path)
    return value


def require_record(value: Any, kind: type[Record], path: str | Path) -> None:
    """Refuse the content of a JSON file that does not have the form of its kind; see `read_record`.

    Raises:
        InputError: If so.
    """
    try:
        kind.model_validate(value)
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        newer = " A newer version may have written it: update marsls-keras." if any(e["type"] == "extra_forbidden" for e in wrong) else ""
        told = list(dict.fromkeys(map(_explain, wrong)))
        raise InputError(f"{path} is damaged, was edited, or is of another version:{listing(told)}\n{kind.remedy}{newer}") from None


def _explain(error: Any) -> str:
    """Return one pydantic error as "key: expected …, found …"."""
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
    # More than a line is more than anyone reads; so is the section of which a rule over several keys does not hold.
    return f"{place}: {message}" if len(found) > 80 else f"{place}: {message}, found {found}"
