"""What a user calls things: plain names of runs, and arguments that files can be named by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from marsls_keras.errors import InputError
from marsls_keras.files import require_text


def require_plain(name: str) -> None:
    """Refuse a name of a run that leads elsewhere than into the folder of the runs.

    Raises:
        InputError: If it is empty, has slashes, is absolute, or holds a +, which joins the names of an ensemble.
    """
    if not name.partition("@")[0].strip(". ") or any(sign in name for sign in "/\\+"):
        raise InputError(f"--run {name}: expected the name of a run, without slashes; name the folder that it is in with --runs.")


def run_folder(runs: Path, name: str) -> Path:
    """Return the folder of a run, or RUN@SET, by its name in the folder of the runs.

    Raises:
        InputError: If it is no plain name.
    """
    require_plain(name)
    return runs / name


def require_arguments(arguments: Iterable[str], environment: Mapping[str, str]) -> None:
    """Refuse arguments, and variables of ours, that are no text: with a NUL character, or bytes that are no UTF-8.

    Raises:
        InputError: If there are any.
    """
    named = [*(("", value) for value in arguments)]
    named += [(f"{name}=", value) for name, value in environment.items() if name.startswith("MARSLS_")]
    for name, value in named:
        try:
            require_text(value)
        except ValueError:
            raise InputError(f"{name}{ascii(value)[1:-1]}: expected text in UTF-8, without NUL characters.") from None
