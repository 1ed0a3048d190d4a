"""Lock and clean up fold directories: one process trains a fold at a time, and finished folds are not overwritten."""

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
    """Lock a fold within the block, against other processes and other machines that share the folder.

    The operating system releases the lock when the process ends, also after a crash.

    Raises:
        InputError: If another process trains the fold.

    Example:
        >>> with hold(Path("runs/default/fold_0")):
        ...     pass  # train the fold
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
    """Rename a fold's directory to fold_<k>.old, so that training it again does not lose the earlier result.

    An older fold_<k>.old is deleted.

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
    """Check that training would not overwrite an earlier training of the fold.

    A fold that has begun may only be resumed, and a finished one only with more epochs.

    Raises:
        InputError: If the fold is finished, damaged or from another configuration, or unfinished without `resume`.

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
                    f"Fold {fold} of run {run.name} is finished, and its state is gone, so it cannot go on. "
                    "Train it anew with --overwrite."
                )
            return
        raise InputError(
            f"Fold {fold} of run {run.name} is finished. Train it longer with --resume --epochs {2 * done} "
            "or anew with --overwrite, or another run with --run."
        )
    raise InputError(f"Run {run.name}: {found.trouble}\nOr begin the fold anew with --overwrite.")


def reopen(folder: Path, best: dict[str, Any]) -> None:
    """Mark a finished fold as unfinished again, so that training can resume from its last state.

    A fold that was interrupted while it was being finished is treated the same.

    Args:
        folder: The directory of the fold.
        best: Entry "best" of `WeightCheckpoint.state` in the last state.

    Example:
        >>> folder = Path("fold_0")
        >>> folder.mkdir()
        >>> (folder / "metrics.json").touch()
        >>> (folder / WEIGHTS).touch()
        >>> reopen(folder, {"file": "best-00041-1a2b3c4d.weights.h5"})
        >>> [path.name for path in folder.iterdir()]
        ['best-00041-1a2b3c4d.weights.h5']
    """
    (folder / "metrics.json").unlink(missing_ok=True)
    if best["file"] and not (folder / best["file"]).exists():
        (folder / WEIGHTS).rename(folder / best["file"])


def close(folder: Path) -> None:
    """Delete old states, superseded weight files and temporary files of a finished fold.

    Example:
        >>> folder = Path("fold_0")
        >>> folder.mkdir()
        >>> (folder / "best-00003-1a2b3c4d.weights.h5").touch()
        >>> (folder / WEIGHTS).touch()
        >>> close(folder)
        >>> [path.name for path in folder.iterdir()]
        ['best.weights.h5']
    """
    states = sorted((folder / "state").glob("?????_??????.npz"))
    for path in (*states[:-1], *folder.glob("best-*.weights.h5"), *folder.glob(".*"), *(folder / "state").glob(".*")):
        path.unlink()
