"""Write study.json for the report, and delete large files of all trials but the best."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from competition.search.space import Space, labels
from competition.search.storage import reason_of
from marsls_keras.config import Distribution, Range
from marsls_keras.files import write_json


def write_study(folder: Path, study: optuna.Study, space: Space) -> None:
    """Write study.json, from which the report draws its plots (marsls_keras/report/study_plots.py).

    Raises:
        RunError: If it cannot be written.

    Example:
        >>> write_study(Path("runs/unet/search"), study, space)  # doctest: +SKIP
    """
    trials = study.get_trials(deepcopy=False)
    keys = {key: _axis(values) for key, values in space.keys.items()}
    content = {
        "name": study.study_name,
        "folds": study.user_attrs["folds"],
        "keys": keys,
        "importance": importance(study),
        "trials": [_row(trial) for trial in trials],
    }
    write_json(folder / "study.json", content)


def _axis(values: Distribution) -> dict[str, Any]:
    return (
        {"low": values.ends[0], "high": values.ends[1], "log": values.log}
        if isinstance(values, Range)
        else {"choices": labels(values)}
    )


def _row(trial: FrozenTrial) -> dict[str, Any]:
    took = (
        (trial.datetime_complete - trial.datetime_start).total_seconds()
        if trial.datetime_complete and trial.datetime_start
        else None
    )
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "miou": trial.value if trial.state == TrialState.COMPLETE else None,
        "epochs": len(trial.intermediate_values),
        "last_miou": trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None,
        "seconds": None if took is None else round(took, 1),
        "reason": reason_of(trial) if trial.state == TrialState.FAIL else None,
        "parameters": trial.params,
    }


def importance(study: optuna.Study) -> dict[str, float]:
    """Return the importance of each key for the mIoU (fANOVA, Hutter et al., ICML 2014), the most important first.

    It is computed from finished trials, for the keys that all of them have. It is empty with fewer than four finished
    trials, or if all have the same mIoU.

    Example:
        >>> importance(optuna.create_study())
        {}
    """
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < 4 or len({trial.value for trial in done}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return {
            key: round(float(value), 4)
            for key, value in optuna.importance.get_param_importances(study, evaluator=evaluator).items()
        }


def tidy(folder: Path, study: optuna.Study, best: FrozenTrial | None) -> None:
    """Delete weights, predictions and training states of all finished trials but the best; keep their text files.

    Example:
        >>> tidy(Path("runs/unet/search"), study, best_trial(study))  # doctest: +SKIP
    """
    for trial in study.get_trials(deepcopy=False):
        if not trial.state.is_finished() or (best and trial.number == best.number):
            continue
        for fold in (folder / f"trial_{trial.number}").glob("fold_*"):
            for path in (*fold.glob("*.h5"), *fold.glob("*.npz")):
                path.unlink(missing_ok=True)
            for path in (fold / "state", fold / "tensorboard"):
                shutil.rmtree(path, ignore_errors=True)
