"""What commands share: options, what to type next."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from marsls_keras.datasets import RELEASES
from marsls_keras.errors import InputError

Runs = Annotated[Path, Option("--runs", envvar="MARSLS_RUNS", help="Folder of the runs.")]
Folds = Annotated[str | None, Option(help="Only these folds, such as 0,1; or full, the refit on all tiles.")]
AsJson = Annotated[bool, Option("--json", help="Print JSON.")]
OwnData = Annotated[Path | None, Option("--data", help="Where the run's data are now, if they were moved.")]
RunNames = Annotated[
    list[str] | None, Option("--run", help="Run; repeat for an ensemble of several. Default: default.")
]


Form = StrEnum("Form", list(RELEASES))  # type: ignore[misc]  # whose members mypy cannot know
FormOrAuto = StrEnum("FormOrAuto", ["auto", *RELEASES])  # type: ignore[misc]
AUTO = FormOrAuto("auto")
Conflicts = StrEnum("Conflicts", ["error", "union", "ignore"])
Release = Annotated[FormOrAuto, Option(help="What the tiles are; auto tells by names and values.")]


def parse_folds(text: str | None) -> list[Any] | None:
    """Return the folds that --folds names; None if it was not given.

    Raises:
        InputError: If it names none.
    """
    if text is None or text == "full":
        return [text] if text else None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--folds {text}: expected numbers with commas between them, such as 0,1, or full.") from None


def next_line(command: str, *options: tuple[str, object]) -> str:
    """Return the line that says what to type next, as a shell takes it; options without value or with the usual one are left out."""
    given = [
        (flag, str(value)) for flag, value in options if value is not None and (flag, str(value)) != ("--runs", "runs")
    ]
    return f"Next: marsls {shlex.join([command, *(word for option in given for word in option)])}"
