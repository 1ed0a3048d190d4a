"""Check the name of a run, and locate its folder."""

from __future__ import annotations

from pathlib import Path

from marsls_keras.errors import InputError


def require_plain(name: str, option: str = "--run") -> None:
    """Check that a text can be the name of a run, or of another folder in that of the runs.

    Args:
        name: The text.
        option: The option that gave it, for the message.

    Raises:
        InputError: If it is empty, has only dots, or contains a slash, + or @. A + joins the names of an ensemble, and
            an @ selected one weight set of a run up to version 0.2.

    Example:
        >>> require_plain("default")
    """
    if "@" in name:
        raise InputError(
            f"{option} {name}: expected a plain name, without @. RUN@SET was removed, since members of one training "
            f"gained nothing (configs/RESULTS.md); {name.partition('@')[0]} is the run with its best weights."
        )
    if not name.strip(". ") or any(sign in name for sign in "/\\+"):
        raise InputError(
            f"{option} {name}: expected a plain name, without slashes and without +; "
            "the folder that it is in is named with --runs."
        )


def run_folder(runs: Path, name: str) -> Path:
    """Return the folder of a run, given the folder of all runs and its name.

    Raises:
        InputError: If the name is not plain; see `require_plain`.

    Example:
        >>> run_folder(Path("runs"), "default")
        PosixPath('runs/default')
    """
    require_plain(name)
    return runs / name
