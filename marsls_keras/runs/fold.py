"""Inspect the directory of one fold: its status, configuration and metrics."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsls_keras.config import Config, changed_keys, read_config
from marsls_keras.data.splits import FULL, Fold
from marsls_keras.errors import InputError
from marsls_keras.files import sha256
from marsls_keras.json_records import read_record
from marsls_keras.runs.records import MetricsRecord

if TYPE_CHECKING:
    from marsls_keras.runs.run import Run

WEIGHTS = "best.weights.h5"
"""Name of the weight file of a finished fold."""


class FoldStatus(StrEnum):
    """Status of a fold; only a finished one can be used for inference.

    Example:
        >>> FoldStatus("unfinished")
        <FoldStatus.UNFINISHED: 'unfinished'>
    """

    MISSING = "missing"
    """Training has not begun."""
    UNFINISHED = "unfinished"
    """Training has begun, and can be resumed."""
    OTHER_CONFIGURATION = "other configuration"
    """It was trained with another configuration than that of the run."""
    DAMAGED = "damaged"
    """A file cannot be read, or belongs to another fold."""
    CHANGED = "changed"
    """Its weights, or another file that its scores depend on, have changed since it was finished."""
    FINISHED = "finished"
    """It is trained with the configuration of the run, and its files are unchanged."""


@dataclass(frozen=True)
class FoldDirectory:
    """Hold the status and the contents of a fold directory at the time of `inspect_fold`.

    Attributes:
        fold: Number of the fold, or "full".
        path: The directory; it need not exist.
        status: Status of the fold.
        trouble: Message why the fold cannot be used, mostly with the command that helps; None if it is finished.
        config: Configuration it was trained with; None if that is missing or damaged.
        metrics: Content of metrics.json; None if that is missing or damaged.

    Example:
        >>> run = Run.open("runs/default")                      # doctest: +SKIP
        >>> run.fold(0).status                                  # doctest: +SKIP
        <FoldStatus.FINISHED: 'finished'>
        >>> run.fold(0).metrics["scores"]["miou"]               # doctest: +SKIP
        0.7642
    """

    fold: Fold
    path: Path
    status: FoldStatus
    trouble: str | None = None
    config: Config | None = None
    metrics: dict[str, Any] | None = None

    @property
    def finished(self) -> bool:
        """Whether the fold is trained with the configuration of the run, and its files are unchanged."""
        return self.status is FoldStatus.FINISHED


def inspect_fold(run: Run, fold: Fold) -> FoldDirectory:
    """Read the directory of a fold and return its status, without raising errors or changing files.

    Args:
        run: The run.
        fold: Number of the fold, or "full".

    Example:
        >>> inspect_fold(Run.open("runs/default"), 1).trouble   # doctest: +SKIP
        'fold 1 is missing: marsls train --run default --fold 1'
    """
    path = run.fold_path(fold)
    config: Config | None = None
    metrics: dict[str, Any] | None = None

    def found(status: FoldStatus, trouble: str | None = None) -> FoldDirectory:
        return FoldDirectory(fold, path, status, trouble, config, metrics)

    if not (path / "config.yaml").exists():
        return found(FoldStatus.MISSING, f"fold {fold} is missing: {_command(run, fold)}")
    try:
        config = read_config(path / "config.yaml")
        # Folds may have different numbers of epochs: each is a valid ensemble member.
        expected = with_epochs(run.config, config.training.epochs)
        changed = changed_keys(without_patience(expected) if fold == FULL else expected, config)
        metrics = read_record(path / "metrics.json", MetricsRecord) if (path / "metrics.json").exists() else None
    except InputError as error:
        return found(FoldStatus.DAMAGED, f"fold {fold} is damaged: {error}")
    if changed:
        return found(
            FoldStatus.OTHER_CONFIGURATION, f"fold {fold} is from another configuration ({'; '.join(changed)})"
        )
    if metrics is None:
        return found(FoldStatus.UNFINISHED, f"fold {fold} is unfinished: {_command(run, fold)} --resume")
    if metrics["fold"] != fold:
        return found(
            FoldStatus.DAMAGED, f"fold {fold} is damaged: {path / 'metrics.json'} is that of fold {metrics['fold']}"
        )
    weights = path / WEIGHTS
    if not weights.exists() or sha256(weights) != metrics["weights_sha256"]:
        what = f"fold {fold} has other weights than it was finished with ({weights} is missing or changed)"
        return found(FoldStatus.CHANGED, what)
    for name, digest in metrics.get("files_sha256", {}).items():
        file = run.bound_files(fold).get(name, path / name)
        if not file.exists() or sha256(file) != digest:
            return found(
                FoldStatus.CHANGED, f"fold {fold} was trained with another {name} ({file} is missing or changed)"
            )
    return found(FoldStatus.FINISHED)


def _command(run: Run, fold: Fold) -> str:
    """Return the command that trains a fold of a run."""
    elsewhere = [] if run.path.parent == Path("runs") else ["--runs", str(run.path.parent)]
    # A run that began with another number of epochs than its recipe's needs the same --epochs in each command.
    epochs = (
        ["--epochs", str(run.config.training.epochs)] if (run.path / "recipe.json").exists() and fold != FULL else []
    )
    return shlex.join(["marsls", "train", "--run", run.path.name, *elsewhere, "--fold", str(fold), *epochs])


def with_epochs(config: Config, epochs: int) -> Config:
    """Return a configuration with another number of epochs.

    Example:
        >>> with_epochs(Config(), 3).training.epochs
        3
    """
    return config.model_copy(update={"training": config.training.model_copy(update={"epochs": epochs})})


def without_patience(config: Config) -> Config:
    """Return a configuration without early stopping, for the refit on all tiles, which evaluates nothing.

    Example:
        >>> without_patience(Config(training={"patience": 5})).training.patience is None
        True
    """
    return config.model_copy(update={"training": config.training.model_copy(update={"patience": None})})
