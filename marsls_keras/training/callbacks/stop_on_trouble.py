"""Stop training at a NaN or infinite loss, or at a signal."""

from __future__ import annotations

import math
from typing import Any

import keras

from marsls_keras.errors import Interrupted
from marsls_keras.signals import Signals
from marsls_keras.training.callbacks.backup_state import BackupState, NotFinite, TrainingState


class Diverged(Exception):
    """Signal that the loss or a weight became NaN or infinite.

    Attributes:
        epoch: Epoch, from 0.
        step: Step of that epoch, from 0; None if it was detected at the end of the epoch.

    Example:
        >>> Diverged(epoch=3, step=None).epoch
        3
    """

    def __init__(self, epoch: int, step: int | None) -> None:
        super().__init__(epoch, step)
        self.epoch, self.step = epoch, step


class StopOnTrouble(keras.callbacks.Callback):
    """Raise an exception at a NaN or infinite loss, or at a signal, before which the state is saved.

    Args:
        backup: The callback that saves the state.
        signals: Signals received so far.
        steps: Steps per epoch.
        state: The state that training resumes from; None at the start.

    Attributes:
        first_step: Steps of the first epoch that were finished before it was interrupted.
        epoch: The current epoch, from 0.
        done: Steps since this training was started or resumed.

    Example:
        >>> with Signals() as signals:  # doctest: +SKIP
        ...     model.fit(batches, callbacks=[StopOnTrouble(backup, signals, steps=25, state=None), checkpoint, backup])
    """

    def __init__(self, backup: BackupState, signals: Signals, steps: int, state: TrainingState | None) -> None:
        super().__init__()
        self.backup, self.signals, self.steps, self.state = backup, signals, steps, state
        self.first_step = state.step if state else 0
        self.epoch = state.epochs if state else 0
        self.done = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop if a signal arrived during the evaluation of the last epoch; else restore the metrics of a resumed one.

        Raises:
            Interrupted: If a signal arrived; the state after the last epoch is saved already.
        """
        self.epoch = epoch
        if self.signals.received:
            raise Interrupted(self.signals.received, f"after epoch {epoch}")
        if self.state and self.state.step:
            self.state.restore_metrics(self.model, self.backup.checkpoint)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Check the loss, and whether a signal arrived.

        Raises:
            Diverged: If the loss is NaN or infinite.
            Interrupted: If a signal arrived; the state after this step has been saved.
        """
        step = self.first_step + batch
        self.done += 1
        # This is the mean loss of the epoch so far, so it stays NaN after the first step with NaN.
        if not math.isfinite(float(logs["loss"])):
            raise Diverged(self.epoch, step)
        if self.signals.received and step + 1 < self.steps:  # the last step's state is saved with the epoch
            try:
                self.backup.save(self.epoch, step + 1)
            except NotFinite:
                raise Diverged(self.epoch, step) from None
            raise Interrupted(
                self.signals.received, f"in epoch {self.epoch + 1}, after step {step + 1} of {self.steps}"
            )
