"""The Keras callback that reports each epoch of a trial to Optuna's pruner."""

from __future__ import annotations

import optuna
from optuna_integration import KerasPruningCallback

from marsls_keras.errors import RunError

MONITOR = "val_miou"


class Pruning(KerasPruningCallback):
    """Report the held-out mIoU after every epoch, and stop where the pruner wants it.

    Adds to optuna-integration's callback what that lacks: a monitor that is not in the logs is an error instead of a
    warning, and the epochs of a trial's second fold are counted on from those of its first.

    Args:
        trial: The trial.
        first: Epochs of the folds before.

    Example:
        >>> model.fit(batches, callbacks=[Pruning(trial, first=0)])
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
