"""Options and texts that several commands share."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable
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


Form = StrEnum("Form", list(RELEASES))  # type: ignore[misc]  # members known at run time only
FormOrAuto = StrEnum("FormOrAuto", ["auto", *RELEASES])  # type: ignore[misc]
AUTO = FormOrAuto("auto")
Conflicts = StrEnum("Conflicts", ["error", "union", "ignore"])
Release = Annotated[FormOrAuto, Option(help="What the tiles are; auto tells by names and values.")]


def help_text(command: Callable[..., Any]) -> str:
    """Return the docstring of a command without its example: the text of --help.

    Example:
        >>> from competition.cli.demo import demo
        >>> help_text(demo)
        'Run every step on synthetic tiles: synth, check, train, tune, submit, score, report.'
    """
    return inspect.cleandoc(command.__doc__ or "").partition("\n\nExample:\n")[0]


def parse_folds(text: str | None) -> list[Any] | None:
    """Parse the value of --folds: numbers with commas between them, or "full"; None if it was not given.

    Raises:
        InputError: If it is something else.

    Example:
        >>> parse_folds("0,1"), parse_folds("full"), parse_folds(None)
        ([0, 1], ['full'], None)
    """
    if text is None or text == "full":
        return [text] if text else None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--folds {text}: expected numbers with commas between them, such as 0,1, or full.") from None


def next_line(command: str, *options: tuple[str, object]) -> str:
    """Return a line that names the next command to run, quoted for a shell.

    Args:
        command: The command after `marsls`.
        options: Each option with its value; those of value None, and --runs with its default, are left out.

    Example:
        >>> next_line("tune", ("--run", "my unet"), ("--folds", None), ("--runs", "runs"))
        "Next: marsls tune --run 'my unet'"
    """
    given = [
        (flag, str(value)) for flag, value in options if value is not None and (flag, str(value)) != ("--runs", "runs")
    ]
    return f"Next: marsls {shlex.join([command, *(word for option in given for word in option)])}"
