"""Planning of the refit on all labelled tiles: its number of epochs and the weight set that it keeps.

Nothing is held out in a refit, so both follow from the results of the finished folds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from marsls_keras.data.splits import FULL
from marsls_keras.errors import InputError
from marsls_keras.json_records import read_record
from marsls_keras.runs.fold import with_epochs, without_patience
from marsls_keras.runs.records import FullRecord
from marsls_keras.runs.run import Run
from marsls_keras.training.pseudo_labels import PseudoRecord

_SETS = ("ema", "swa", "last")
"""Weight sets, preferred first where folds disagree or are absent: an average varies less than single weights."""


@dataclass(frozen=True)
class RefitPlan:
    """Hold the number of epochs and the weight set of a refit, and the fold results they follow from.

    It is written to fold_full/full.json when the refit begins.

    Attributes:
        epochs: Number of epochs.
        weights: The weight set that is kept: "last", "ema" or "swa".
        folds: The finished folds that it follows from.
        best_epochs: Number of epochs after which each fold was best.
        best_weights: The best weight set of each fold.
        pseudo: Record of the pseudo-labels; None without any.

    Example:
        >>> RefitPlan(epochs=23, weights="ema", folds=(0, 1), best_epochs=(20, 26), best_weights=("ema", "ema")).epochs
        23
    """

    epochs: int
    weights: str
    folds: tuple[int, ...]
    best_epochs: tuple[int, ...]
    best_weights: tuple[str, ...]
    pseudo: PseudoRecord | None = None

    @classmethod
    def read(cls, path: Path) -> RefitPlan:
        """Read the plan from a full.json.

        Raises:
            InputError: If it is missing, damaged, or not of this form.
        """
        value = read_record(path, FullRecord)
        folds, best_epochs, best_weights = (tuple(value[name]) for name in ("folds", "best_epochs", "best_weights"))
        pseudo = value.get("pseudo")  # earlier versions did not write it
        return cls(
            value["epochs"],
            value["weights"],
            folds,
            best_epochs,
            best_weights,
            PseudoRecord(**pseudo) if pseudo else None,
        )


def plan_refit(run: Run, epochs: int | None = None, resume: bool = False) -> RefitPlan:
    """Choose number of epochs and weight set of a run's refit from its finished folds.

    The number of epochs is the mean of the folds' best epochs, rounded, but always more than the warm-up and at least
    `swa_epochs`. The learning-rate schedule spans this number of epochs, so a refit always completes it, while a fold
    may have been best before the end of its own. The weight set is the one that was best in most folds. A resumed refit
    keeps the plan that it began with.

    Args:
        run: The run.
        epochs: Number of epochs, instead of that of the folds; no fold need be finished then.
        resume: Whether to resume a refit that has begun.

    Raises:
        InputError: If no fold is finished and `epochs` is not given.

    Example:
        >>> plan_refit(Run.open("runs/default")).epochs  # doctest: +SKIP
        23
    """
    begun = run.fold_path(FULL) / "full.json"
    if resume and begun.exists():
        plan = RefitPlan.read(begun)
        return plan if epochs is None else replace(plan, epochs=epochs)
    folds = [fold for fold in range(run.splits.folds) if run.fold(fold).finished]
    if not folds and epochs is None:
        raise InputError(
            f"Run {run.name} has no finished fold that could say how many epochs to train for. "
            "Train one first, or all of them with --fold all, or give their number with --epochs."
        )
    metrics = [run.metrics(fold) for fold in folds]
    best, kept = [m["best_epoch"] + 1 for m in metrics], [m["best_weights"] for m in metrics]
    training = run.config.training
    if epochs is None:
        epochs = max(
            round(sum(best) / len(best)),
            int(training.warmup_epochs) + (training.warmup_epochs > 0),
            training.swa_epochs,
        )
    votes = Counter(kept)
    weights = max((name for name in _SETS if name in training.weight_sets), key=lambda name: votes[name])
    return RefitPlan(epochs, weights, tuple(folds), tuple(best), tuple(kept))


def as_refit(run: Run, plan: RefitPlan) -> Run:
    """Return the run with the configuration of its refit: the plan's number of epochs, and no early stopping.

    Early stopping (`patience`) needs held-out tiles.

    Example:
        >>> as_refit(run, plan_refit(run)).config.training.patience is None  # doctest: +SKIP
        True
    """
    return replace(run, config=without_patience(with_epochs(run.config, plan.epochs)))
