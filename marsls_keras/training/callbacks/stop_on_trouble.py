"""Watching over a training: values that are no numbers, and signals that ask it to stop."""

from __future__ import annotations

import math
from typing import Any

import keras

from marsls_keras.errors import Interrupted
from marsls_keras.signals import Signals
from marsls_keras.training.callbacks.backup_state import BackupState, NotFinite, TrainingState


class Diverged(Exception):
    """The loss or a weight became NaN or infinite.

    Attributes:
        epoch: Epoch, from 0.
        step: Step in it, from 0; None if it was noticed only when the epoch had ended.

    Example:
        >>> Diverged(epoch=3, step=None).epoch
        3
    """

    def __init__(self, epoch: int, step: int | None) -> None:
        super().__init__(epoch, step)
        self.epoch, self.step = epoch, step


class StopOnTrouble(keras.callbacks.Callback):
    """Stop training at a NaN or infinite loss, or when a signal arrives; the state is saved first.

    Args:
        backup: The callback that saves the state.
        signals: The signals.
        steps: Steps an epoch.
        state: The state that training goes on from.

    Attributes:
        first_step: Steps that the first epoch had done before it was stopped.
        epoch: The current epoch, from 0.
        done: Steps done so far.

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
        """Give the metrics what a stopped epoch had counted, and stop if a signal came while the epoch before was evaluated.

        Raises:
            Interrupted: If so; the state is that after the epoch before.
        """
        self.epoch = epoch
        if self.signals.received:
            raise Interrupted(self.signals.received, f"after epoch {epoch}")
        if self.state and self.state.step:
            self.state.restore_metrics(self.model, self.backup.checkpoint)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Look at the loss and for a signal.

        Raises:
            Diverged: If the loss is NaN or infinite.
            Interrupted: If a signal came; the state after this step has been saved.
        """
        step = self.first_step + batch
        self.done += 1
        # The loss is a mean over the epoch so far, which one value that is no number spoils from then on.
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
