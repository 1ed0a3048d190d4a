"""The decision: threshold and views, chosen on out-of-fold predictions, with a figure that was not itself tuned."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from competition.oof import OutOfFold
from marsls_keras.counts import BINS, Counts, bootstrap, confusion, counts_at_thresholds, histogram, interval
from marsls_keras.errors import InputError
from marsls_keras.files import read_json
from marsls_keras.training.run_dir import Run

PLAIN: dict[str, Any] = {"views": "identity", "threshold": 0.5}
"""The decision of a run that was not tuned."""


def decide(oof: OutOfFold, view_sets: Sequence[str]) -> dict[str, Any]:
    """Choose threshold and views by pooled mIoU.

    The nested figure is honest: each fold's tiles are segmented with what was chosen on the other folds alone, and the counts are pooled.
    If that is no better than threshold 0.5 without views, the plain decision is kept.

    Args:
        oof: Out-of-fold predictions with all views that the sets need.
        view_sets: Names of the candidate sets of views.

    Returns:
        The content of decision.json: runs, folds, members, views, threshold, and the scores with block-bootstrap intervals of the plain
        decision (`baseline`), of the nested one (`nested`, None if there is one fold only), of the final one on the tiles that it was
        chosen on (`tuned`, optimistic), of those the one to expect of the final decision on new tiles (`expected`), the paired gain of
        nested over plain, and the best threshold of each set of views.
    """
    folds = sorted(set(oof.folds.tolist()))
    tables = {name: _histograms(oof, name, folds) for name in view_sets}
    plain = _counts(oof, PLAIN["views"], PLAIN["threshold"])
    views, threshold = choose({name: table.sum(0) for name, table in tables.items()})
    nested = _nested(oof, tables, folds) if len(folds) > 1 else None
    baseline, honest, gain = _summary(plain, oof.blocks), None, None
    if nested is not None:
        honest = _summary(nested["counts"], oof.blocks)
        draws = bootstrap(nested["counts"], oof.blocks) - bootstrap(plain, oof.blocks)
        gain = {"miou": honest["scores"]["miou"] - baseline["scores"]["miou"], "interval": interval(draws)}
        if gain["miou"] <= 0:
            views, threshold = PLAIN["views"], PLAIN["threshold"]
    return {
        "runs": list(oof.members),
        "folds": folds,
        "members": oof.members,
        "views": views,
        "threshold": threshold,
        "expected": honest if gain and gain["miou"] > 0 else baseline,
        "baseline": {**PLAIN, **baseline},
        "nested": {**honest, "per_fold": nested["per_fold"]} if nested and honest else None,
        "gain": gain,
        "tuned": _summary(_counts(oof, views, threshold), oof.blocks),
        "view_sets": {name: _best(table.sum(0)) for name, table in tables.items()},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def choose(tables: dict[str, np.ndarray]) -> tuple[str, float]:
    """Return the set of views and the threshold with the highest mIoU, from a histogram (2, BINS) per set.

    Optuna goes through the sets; the threshold needs no search, since a histogram gives the score at every one of them. Among equals the
    set named first and the lowest threshold win.
    """

    def objective(trial: optuna.Trial) -> float:
        best = _best(tables[trial.suggest_categorical("views", list(tables))])
        trial.set_user_attr("threshold", best["threshold"])
        return best["miou"]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.GridSampler({"views": list(tables)}, seed=0))
    study.optimize(objective, n_trials=len(tables))
    order = list(tables)
    best = max(study.trials, key=lambda trial: (trial.value, -order.index(trial.params["views"])))
    return best.params["views"], best.user_attrs["threshold"]


def decision_path(runs: Sequence[Run]) -> Path:
    """Return where the decision of these runs lies: in the run's folder, or for several in one named after all of them."""
    return runs[0].path.parent / "+".join(run.name for run in runs) / "decision.json"


def read_decision(runs: Sequence[Run], folds: list[int]) -> dict[str, Any] | None:
    """Return the decision of these runs, or None if they were not tuned.

    Raises:
        InputError: If a fold was trained anew since, so that the decision is about other weights.
    """
    path = decision_path(runs)
    if not path.exists():
        return None
    decision = read_json(path)
    for run in runs:
        then = decision["members"].get(run.name, {})
        stale = [fold for fold, digest in run.digest(folds).items() if then.get(fold, digest) != digest]
        if stale:
            raise InputError(f"{path} was taken before fold {', '.join(stale)} of run {run.name} was trained anew. Run marsls tune again.")
    return decision


def _histograms(oof: OutOfFold, view_set: str, folds: list[int]) -> np.ndarray:
    """Return the histograms (F, 2, BINS) of each fold."""
    probability = oof.probability(view_set)
    return np.stack([histogram(oof.tiles.masks[oof.folds == fold], probability[oof.folds == fold]) for fold in folds])


def _best(table: np.ndarray) -> dict[str, float]:
    """Return the best threshold of a histogram (2, BINS), 0 left out, since at 0 everything is landslide."""
    curve = counts_at_thresholds(table).scores()["miou"]
    k = int(np.argmax(curve[1:])) + 1
    return {"threshold": k / BINS, "miou": float(curve[k])}


def _counts(oof: OutOfFold, views: str, threshold: float, index: Any = slice(None)) -> Counts:
    """Return the counts per tile, of the tiles at `index`."""
    predicted = oof.probability(views)[index] >= np.float32(threshold)
    return confusion(oof.tiles.masks[index], predicted, axis=(1, 2))


def _nested(oof: OutOfFold, tables: dict[str, np.ndarray], folds: list[int]) -> dict[str, Any]:
    """Return the counts per tile of every fold under the decision of the others, and those decisions."""
    fields = np.zeros((4, len(oof.folds)), np.int64)
    per_fold = []
    for i, fold in enumerate(folds):
        views, threshold = choose({name: table.sum(0) - table[i] for name, table in tables.items()})
        index = np.flatnonzero(oof.folds == fold)
        counts = _counts(oof, views, threshold, index)
        fields[:, index] = counts.tp, counts.fp, counts.fn, counts.tn
        per_fold.append({"fold": fold, "views": views, "threshold": threshold, "miou": counts.pooled().scores()["miou"]})
    return {"counts": Counts(*fields), "per_fold": per_fold}


def _summary(counts: Counts, blocks: np.ndarray) -> dict[str, Any]:
    return {"scores": counts.pooled().scores(), "interval": interval(bootstrap(counts, blocks))}
