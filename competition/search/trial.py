"""One trial of a search, in a process of its own, so that all memory is returned when it ends."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna

from competition.search.storage import open_store
from marsls_keras.config import read_config
from marsls_keras.errors import InputError

PRUNED = 3
"""Exit code of a trial that was stopped since others were better."""


@dataclass(frozen=True)
class Order:
    """What a trial's process is told, as one line of JSON on its standard input.

    Attributes:
        storage: Where the study is, as `open_store` takes it; not among the arguments, since a URL may hold a password.
        study: Its name.
        trial: Optuna's id of the trial.
        pruner: Name of the pruner.
        folder: The trial's folder, which holds recipe.yaml; it becomes a run.
        data: Data folder.
        folds: The folds to train, one after the other.
    """

    storage: str
    study: str
    trial: int
    pruner: str
    folder: str
    data: str
    folds: list[int]

    def line(self) -> bytes:
        """Return the line."""
        return json.dumps(asdict(self)).encode() + b"\n"


def build_pruner(name: str, steps: int) -> optuna.pruners.BasePruner:
    """Return a pruner by name.

    Args:
        name: none; median, which stops what is below the median of the others at that epoch, from the sixth trial on; asha (Li et al.,
            "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020) or hyperband (Li et al., JMLR 2018), by which a third of
            the trials go on to three times as many epochs.
        steps: Epochs of a trial, those of all its folds together.

    Raises:
        KeyError: If there is no such pruner.
    """
    first = max(1, steps // 9)
    return {
        "none": lambda: optuna.pruners.NopPruner(),
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=first),
        "asha": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=3),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=first, max_resource=max(steps, first), reduction_factor=3),
    }[name]()


def run_trial(train: Callable[..., Any]) -> int:
    """Train the trial that standard input tells of, and return the exit code: 0, or PRUNED.

    The process ends with the one that started it: that holds the other end of standard input open.

    Args:
        train: What trains a fold: `competition.commands.train.train`.

    Raises:
        InputError: If the configuration or the data are refused.
        RunError: If training fails.
        Interrupted: If a signal asked training to stop.
    """
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as pipe:  # a buffer would be locked by the thread that waits below
        try:
            order = Order(**json.loads(pipe.readline()))
        except (ValueError, TypeError, RecursionError):
            raise InputError("marsls trial is told what to do by marsls tune training, which starts it.") from None
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from competition.console import say
    from competition.search.pruning import Pruning

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = Path(order.folder)
    epochs = read_config(folder / "recipe.yaml").training.epochs
    pruner = build_pruner(order.pruner, epochs * len(order.folds))
    study = optuna.load_study(study_name=order.study, storage=open_store(order.storage, say).storage, pruner=pruner)
    trial = optuna.Trial(study, order.trial)
    try:
        for i, fold in enumerate(order.folds):
            common: dict[str, Any] = {"runs": folder.parent, "name": folder.name, "resume": False, "overwrite": False, "say": say}
            watching = [Pruning(trial, first=i * epochs)]
            train(str(folder / "recipe.yaml"), [], Path(order.data), str(fold), **common, callbacks=watching)
    except optuna.TrialPruned as stop:
        say(str(stop))
        return PRUNED
    return 0


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)
