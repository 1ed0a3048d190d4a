"""Who may write into a fold's directory, and when: one process at a time, and not over what is finished."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from marsls_keras.data.splits import Fold
from marsls_keras.errors import InputError
from marsls_keras.runs.fold import WEIGHTS, FoldStatus
from marsls_keras.runs.run import Run


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Lock a fold within the block, so that no other process, nor another machine that shares the folder, trains it.

    The operating system lets go of the lock when the process ends, however it ends.

    Raises:
        InputError: If another process trains the fold.

    Example:
        >>> with hold(Path("/tmp/runs/default/fold_0")):
        ...     pass  # nobody else trains this fold
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"{folder} is being trained by another process.") from None
    try:
        yield
    finally:
        lock.release()


def discard(run: Run, fold: Fold) -> None:
    """Put an earlier result of a fold aside as fold_<k>.old, so that it can be trained anew without losing it.

    Raises:
        InputError: If another process is training it.

    Example:
        >>> discard(Run.open("runs/default"), 0)  # doctest: +SKIP
    """
    folder = run.fold_path(fold)
    if folder.exists():
        with hold(folder):
            aside = folder.with_name(f"{folder.name}.old")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)


def require_fresh(run: Run, fold: Fold, resume: bool) -> None:
    """Refuse to train a fold that has begun, unless it is to be resumed: unfinished, or finished with fewer epochs than it is to have now.

    Raises:
        InputError: If the fold is finished, from another configuration, or unfinished and not to be resumed.

    Example:
        >>> require_fresh(Run.open("runs/default"), 0, resume=True)  # doctest: +SKIP
    """
    found = run.fold(fold)
    if found.status is FoldStatus.MISSING or (resume and found.status is FoldStatus.UNFINISHED):
        return
    if found.config is not None and found.finished:
        epochs, done = run.config.training.epochs, found.config.training.epochs
        if epochs > done and resume:
            if not any((found.path / "state").glob("*.npz")):
                raise InputError(
                    f"Fold {fold} of run {run.name} is finished, and its state is gone, so it cannot go on. Train it anew with --overwrite."
                )
            return
        raise InputError(
            f"Fold {fold} of run {run.name} is finished. Train it longer with --resume --epochs {2 * done} or anew with --overwrite, "
            "or another run with --run."
        )
    raise InputError(f"Run {run.name}: {found.trouble}\nOr begin the fold anew with --overwrite.")


def reopen(folder: Path, best: dict[str, Any]) -> None:
    """Make a fold that was finished, or stopped while it was being finished, unfinished again, so that it can go on from its last state.

    Args:
        folder: The fold's folder.
        best: What that state knows of the best weights.

    Example:
        >>> reopen(run.fold_path(0), state.checkpoint["best"])  # doctest: +SKIP
    """
    (folder / "metrics.json").unlink(missing_ok=True)
    if best["file"] and not (folder / best["file"]).exists():
        (folder / WEIGHTS).rename(folder / best["file"])


def close(folder: Path) -> None:
    """Remove old states, superseded weights and half-written files of a finished fold.

    Example:
        >>> close(run.fold_path(0))  # doctest: +SKIP
    """
    states = sorted((folder / "state").glob("?????_??????.npz"))
    for path in (*states[:-1], *folder.glob("best-*.weights.h5"), *folder.glob(".*"), *(folder / "state").glob(".*")):
        path.unlink()
