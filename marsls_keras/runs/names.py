"""What a user calls things: plain names of runs, and arguments that files can be named by."""

from __future__ import annotations

from pathlib import Path

from marsls_keras.errors import InputError


def require_plain(name: str) -> None:
    """Refuse what cannot be the name of a run.

    Raises:
        InputError: If it is empty, leads elsewhere than into the folder of the runs, or holds a + or an @: a + joins
            the names of an ensemble, and an @ named one set of weights of a run in version 0.1.

    Example:
        >>> require_plain("default")
    """
    if "@" in name:
        raise InputError(
            f"--run {name}: expected a plain name, without @. RUN@SET was removed, since members of one training gained nothing "
            f"(configs/README.md); {name.partition('@')[0]} is the run with its best weights."
        )
    if not name.strip(". ") or any(sign in name for sign in "/\\+"):
        raise InputError(
            f"--run {name}: expected a plain name of a run, without slashes and without +; the folder that it is in is named with --runs."
        )


def run_folder(runs: Path, name: str) -> Path:
    """Return the folder of a run by its name in the folder of the runs.

    Raises:
        InputError: If it is no plain name.

    Example:
        >>> run_folder(Path("runs"), "default")
        PosixPath('runs/default')
    """
    require_plain(name)
    return runs / name
