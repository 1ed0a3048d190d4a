"""Find and read the decision of runs: one file per purpose, valid only for the weights it was tuned on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from marsls_keras.data.splits import FULL, Fold
from marsls_keras.inference.decision import Decision, DecisionError
from marsls_keras.inference.purpose import Purpose
from marsls_keras.runs.run import Run

logger = logging.getLogger(__name__)

_FILES = {Purpose.REGION: "decision_region.json", Purpose.PUBLISHED: "decision.json"}


def decision_path(runs: Sequence[Run], purpose: str = Purpose.PUBLISHED) -> Path:
    """Return the path of the decision of runs for a purpose.

    It lies in the folder of the run, or, for several runs, in a folder named after all of them.

    Raises:
        ValueError: If there is no such purpose.

    Example:
        >>> decision_path([Run.open("runs/base")], "region")  # doctest: +SKIP
        PosixPath('runs/base/decision_region.json')
    """
    return runs[0].path.parent / "+".join(run.name for run in runs) / _FILES[Purpose(purpose)]


def plain_decision(runs: Sequence[Run]) -> Decision:
    """Return the decision for runs that were not tuned: threshold 0.5, and the views of the first run's configuration.

    Example:
        >>> plain_decision([Run.open("runs/base")]).threshold  # doctest: +SKIP
        0.5
    """
    return Decision(views=runs[0].config.inference.views)


def read_decision(runs: Sequence[Run], folds: Sequence[Fold], purpose: str | None = None) -> Decision | None:
    """Read the decision of runs for a purpose; None if they were not tuned.

    If there is a decision for the other purpose only, that one is returned; its `purpose` says so. Without `purpose`
    the decision for a new region is preferred. A refit on all tiles uses the decision that was tuned on the folds, and
    the weights of the folds that still exist are checked: a refit has no out-of-fold predictions of its own.

    Raises:
        DecisionError: If it is damaged or was edited, is that of other runs, or if a fold was trained again since, so
            that the decision is for other weights.
        ValueError: If there is no such purpose.

    Example:
        >>> read_decision([Run.open("runs/base")], [0, 1]).describe()  # doctest: +SKIP
        'views d4, threshold 0.45'
    """
    wanted = Purpose(purpose or Purpose.REGION)
    found: dict[Purpose, tuple[Path, Decision]] = {}
    for path in (decision_path(runs, wanted), decision_path(runs, wanted.other)):
        if path.exists() and wanted not in found:  # a decision that is not used may be damaged
            read = Decision.read(path)
            found.setdefault(read.purpose or wanted, (path, read))
    if not found:
        return None
    path, decision = found.get(wanted) or next(iter(found.values()))
    _require_about(decision, path, runs, folds)
    return decision


def decision_of(runs: Sequence[Run], folds: Sequence[Fold], purpose: str | None = None) -> Decision:
    """Return the decision of `read_decision`, or the plain one if the runs were not tuned.

    A log message says if it is the plain decision or one for another purpose.

    Raises:
        DecisionError: As `read_decision` does.

    Example:
        >>> decision_of([Run.open("runs/base")], [0, 1]).threshold  # doctest: +SKIP
        0.45
    """
    decision = read_decision(runs, folds, purpose)
    options = " ".join(f"--run {run.name}" for run in runs)
    if decision is None:
        plain = plain_decision(runs)
        logger.info(f"Not tuned: threshold 0.5, views {plain.view_set}. marsls tune {options} may find better.")
        return plain
    if purpose is not None and decision.purpose is not None and decision.purpose != purpose:
        other = f"marsls tune {options} --for {purpose} makes one for {Purpose(purpose).words}"
        logger.info(f"The decision is one for {decision.purpose.words}. {other}.")
    return decision


def _require_about(decision: Decision, path: Path, runs: Sequence[Run], folds: Sequence[Fold]) -> None:
    """Raise DecisionError if a decision was tuned on other runs or on other weights of these runs."""
    tuning = decision.tuning
    assert tuning is not None, "what is read from a file was tuned"
    if sorted(tuning.runs) != sorted(run.name for run in runs):
        raise DecisionError(f"{path} is the decision of {', '.join(tuning.runs)}. Run marsls tune again.")
    for run in runs:
        then = tuning.members[run.name]
        members = [fold for fold in tuning.folds if run.fold(fold).finished] if FULL in folds else folds
        stale = [fold for fold, digest in run.digest(members).items() if then.get(fold, digest) != digest]
        if stale:
            raise DecisionError(
                f"{path} was taken before fold {', '.join(stale)} of run {run.name} was trained anew. "
                "Run marsls tune again."
            )
