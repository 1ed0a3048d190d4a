"""Open the runs of an ensemble."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from marsls_keras.data.splits import Fold
from marsls_keras.errors import InputError
from marsls_keras.runs.names import run_folder
from marsls_keras.runs.run import Run


def open_runs(names: Sequence[str], runs: Path, folds: Sequence[Fold] | None) -> tuple[list[Run], list[Fold]]:
    """Open the runs of an ensemble, and return them with the folds to use, which are the same for all runs.

    Args:
        names: Names of the runs.
        runs: Folder of all runs.
        folds: The folds to use; None for all.

    Raises:
        InputError: If a run is missing or named twice, one of its folds is not finished, or the runs differ in their
            folds or tile sizes.

    Example:
        >>> opened, folds = open_runs(["a", "b"], Path("runs"), None)  # doctest: +SKIP
        >>> [run.name for run in opened], folds  # doctest: +SKIP
        (['a', 'b'], [0, 1, 2, 3, 4])
    """
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise InputError(f"--run {twice[0]} is given twice; a run is a member of an ensemble once.")
    opened = [Run.open(run_folder(runs, name)) for name in names]
    used = [run.finished_folds(folds) for run in opened]
    if any(other != used[0] for other in used):
        raise InputError(
            f"The runs {', '.join(names)} have different numbers of folds. Choose common ones with --folds."
        )
    if len(sizes := {run.config.data.resize for run in opened}) > 1:
        found = ", ".join(f"{run.name} {run.config.data.resize}" for run in opened)
        raise InputError(
            f"The runs see tiles of {len(sizes)} sizes (data.resize: {found}), so their predictions cannot be averaged."
        )
    return opened, used[0]
