"""The refit on all labelled tiles: nothing is held out, so the finished folds say how long it trains and which weights it keeps."""

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
"""In the order of preference where the folds are divided, or there are none: an average varies less than the weights it is made of."""


@dataclass(frozen=True)
class RefitPlan:
    """What is decided before a refit begins; kept as fold_full/full.json.

    Attributes:
        epochs: Number of epochs.
        weights: The weights that are kept: "last", "ema" or "swa".
        folds: The finished folds that were asked.
        best_epochs: For each, after how many epochs it was best.
        best_weights: For each, which of its weights were.
        pseudo: What is known of the pseudo-labelled tiles that it trains on, too; None without any.

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
        """Return the plan of a full.json.

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
    """Decide on the refit of a run.

    It has as many epochs as the finished folds took to their best, on average and rounded, but always more than the
    warm-up and no fewer than `swa_epochs`. The learning-rate schedule is that of as many epochs, so it comes to its
    end, where the folds' best epochs may have come earlier in theirs. The weights kept are the set that was the best in
    most folds. A refit that is resumed keeps to what was decided when it began.

    Args:
        run: The run.
        epochs: Number of epochs, whatever the folds say; then none of them need be there.
        resume: Whether a refit that has begun goes on.

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
            f"Run {run.name} has no finished fold that could say how many epochs to train for. Train one first, or all of them with "
            "--fold all, or give their number with --epochs."
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
    """Return the run as its refit trains it: with the plan's number of epochs, and without patience, since nothing is evaluated.

    Example:
        >>> as_refit(run, plan_refit(run)).config.training.patience is None  # doctest: +SKIP
        True
    """
    return replace(run, config=without_patience(with_epochs(run.config, plan.epochs)))
