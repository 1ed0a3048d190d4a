"""Options and texts that several commands share."""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from marsls_keras.datasets import RELEASES
from marsls_keras.errors import InputError


def recipe_names(incomplete: str) -> list[str]:
    """Return the recipes whose names begin so, for the shell's completion.

    Example:
        >>> recipe_names("fa")
        ['fast']
    """
    from marsls_keras.config import recipes

    return [name for name in recipes() if name.startswith(incomplete)]


def run_names(incomplete: str) -> list[str]:
    """Return the runs in $MARSLS_RUNS, or else in runs/, whose names begin so, for the shell's completion.

    Example:
        >>> run_names("")
        []
    """
    return sorted(
        path.parent.name
        for path in Path(os.environ.get("MARSLS_RUNS", "runs")).glob("*/config.yaml")
        if path.parent.name.startswith(incomplete)
    )


Runs = Annotated[Path, Option("--runs", envvar="MARSLS_RUNS", help="Folder of the runs.")]
Folds = Annotated[
    str | None,
    Option(
        metavar="K,K", help="Use only these folds, such as 0,1; or full, the network that was trained on all tiles."
    ),
]
AsJson = Annotated[bool, Option("--json", help="Print the result as JSON.")]
OwnData = Annotated[Path | None, Option("--data", help="Data folder of the run, if it was moved since training.")]
RunNames = Annotated[
    list[str] | None,
    Option(
        "--run",
        metavar="NAME",
        help="Name of the run; repeat it for an ensemble of several. By default: default.",
        autocompletion=run_names,
    ),
]
Settings = Annotated[
    list[str] | None,
    Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe, such as training.epochs=30; repeatable."),
]


Form = StrEnum("Form", list(RELEASES))  # type: ignore[misc]  # members known at run time only
FormOrAuto = StrEnum("FormOrAuto", ["auto", *RELEASES])  # type: ignore[misc]
AUTO = FormOrAuto("auto")
Conflicts = StrEnum("Conflicts", ["error", "union", "ignore"])
Release = Annotated[FormOrAuto, Option(help="Dataset that the tiles belong to; auto detects it from names and values.")]


def help_text(command: Callable[..., Any]) -> str:
    """Return the docstring of a command without its example: the text of --help.

    Example:
        >>> from competition.cli.demo import demo
        >>> help_text(demo)
        'Run every step on synthetic tiles: synth, check, train, tune, submit, score, report.'
    """
    return inspect.cleandoc(command.__doc__ or "").partition("\n\nExample:\n")[0]


def data_option(data: Path | None) -> tuple[str, Path | None]:
    """Return --data with its value, or None if it is what a command takes by itself.

    Example:
        >>> data_option(Path("tiles")), data_option(Path("data"))
        (('--data', PosixPath('tiles')), ('--data', None))
    """
    return "--data", None if data == Path(os.environ.get("MARSLS_DATA", "data")) else data


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


def next_line(command: str, *words: str | tuple[str, object]) -> str:
    """Return a line that names the next command to run, quoted for a shell.

    Args:
        command: The command after `marsls`.
        words: Arguments, and options as (flag, value); options of value None, and --runs with its default, are left
            out.

    Example:
        >>> next_line("tune", ("--run", "my unet"), ("--folds", None), ("--runs", "runs"))
        "Next: marsls tune --run 'my unet'"
        >>> next_line("check", "tiles")
        'Next: marsls check tiles'
    """
    given: list[str] = []
    for word in words:
        if isinstance(word, str):
            given.append(word)
        elif word[1] is not None and (word[0], str(word[1])) != ("--runs", "runs"):
            given += [word[0], str(word[1])]
    return f"Next: marsls {shlex.join([command, *given])}"
