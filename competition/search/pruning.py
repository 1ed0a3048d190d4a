"""Keras callback that reports each epoch of a trial to Optuna's pruner."""

from __future__ import annotations

import optuna
from optuna_integration import KerasPruningCallback

from marsls_keras.errors import RunError

MONITOR = "val_miou"


class Pruning(KerasPruningCallback):
    """Report the held-out mIoU to Optuna after every epoch, and stop the trial if the pruner says so.

    Differs from optuna-integration's callback in two ways: a monitor that is missing from the logs is an error instead
    of a warning, and the epochs of a trial's second fold are counted from the end of its first.

    Args:
        trial: The trial.
        first: Number of epochs of the trial's earlier folds.

    Example:
        >>> model.fit(batches, callbacks=[Pruning(trial, first=0)])  # doctest: +SKIP
    """

    def __init__(self, trial: optuna.Trial, first: int) -> None:
        super().__init__(trial, MONITOR)
        self.first = first

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Report the epoch.

        Raises:
            RunError: If the logs do not have the monitor.
            optuna.TrialPruned: If the trial is to stop.
        """
        if MONITOR not in (logs or {}):
            raise RunError(f"The pruner watches {MONITOR}, but an epoch has only {', '.join(logs or {}) or 'nothing'}.")
        super().on_epoch_end(self.first + epoch, logs)
