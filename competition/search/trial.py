"""Train one trial of a search in its own process, so that all memory is freed when it ends."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna

from competition.search.request import read_request
from competition.search.storage import open_storage
from marsls_keras.config import read_config

logger = logging.getLogger(__name__)

PRUNED = 3
"""Exit code of a trial that the pruner stopped."""


@dataclass(frozen=True)
class TrialRequest:
    """Arguments of a trial's process, which reads them as one line of JSON from standard input.

    Attributes:
        storage: Path or URL of the storage, see `open_storage`; not a command-line argument, since a URL may hold a
            password.
        study: Name of the study.
        trial: Optuna's id of the trial.
        pruner: Name of the pruner.
        folder: The trial's folder, which holds recipe.yaml; it becomes a run.
        data: Data folder.
        folds: The folds to train, one after the other.

    Example:
        >>> request = TrialRequest("journal.log", "unet", 0, "median", "runs/unet/search/trial_0", "data", [0])
        >>> json.loads(request.line())["folds"]
        [0]
    """

    storage: str
    study: str
    trial: int
    pruner: str
    folder: str
    data: str
    folds: list[int]

    def line(self) -> bytes:
        """Return the request as a line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"


def build_pruner(name: str, steps: int) -> optuna.pruners.BasePruner:
    """Return an Optuna pruner by name.

    Args:
        name: none; median, which stops trials below the median of the others at that epoch, from the sixth trial on;
            asha (Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020) or hyperband (Li et
            al., JMLR 2018), by which a third of the trials go on to three times as many epochs.
        steps: Epochs of a trial, those of all its folds together.

    Raises:
        KeyError: If there is no such pruner.

    Example:
        >>> type(build_pruner("median", 60)).__name__
        'MedianPruner'
    """
    first = max(1, steps // 9)
    return {
        "none": lambda: optuna.pruners.NopPruner(),
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=first),
        "asha": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=3),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(
            min_resource=first, max_resource=max(steps, first), reduction_factor=3
        ),
    }[name]()


def run_trial(train: Callable[..., Any]) -> int:
    """Train the trial that standard input describes, and return the exit code: 0, or `PRUNED`.

    The process ends when the one that started it does, since that holds the other end of standard input open.

    Args:
        train: Function that trains a fold; its keyword arguments are fields of
            `competition.commands.train.TrainRequest`.

    Raises:
        InputError: If the configuration or the data are refused.
        RunError: If training fails.
        Interrupted: If a signal asked training to stop.

    Example:
        >>> command = [*PROGRAM, "trial"]  # doctest: +SKIP
        >>> subprocess.run(command, input=request.line()).returncode  # doctest: +SKIP
        0
    """
    request = read_request(TrialRequest, "search")
    from competition.search.pruning import Pruning

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = Path(request.folder)
    epochs = read_config(folder / "recipe.yaml").training.epochs
    pruner = build_pruner(request.pruner, epochs * len(request.folds))
    study = optuna.load_study(study_name=request.study, storage=open_storage(request.storage), pruner=pruner)
    trial = optuna.Trial(study, request.trial)
    try:
        for i, fold in enumerate(request.folds):
            watching = [Pruning(trial, first=i * epochs)]
            recipe, data = str(folder / "recipe.yaml"), Path(request.data)
            train(config=recipe, data=data, fold=str(fold), runs=folder.parent, name=folder.name, callbacks=watching)
    except optuna.TrialPruned as stop:
        logger.info(str(stop))
        return PRUNED
    return 0
