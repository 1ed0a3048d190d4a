"""What a user calls things: plain names of runs, and arguments that files can be named by."""

from __future__ import annotations

from pathlib import Path

from marsls_keras.errors import InputError


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
