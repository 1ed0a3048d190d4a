"""One training attempt: build, compile and fit the network, starting from random weights or from a saved state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import keras

from marsls_keras.errors import RunError
from marsls_keras.files import write_json
from marsls_keras.losses import build_loss
from marsls_keras.metrics import SegmentationCounts
from marsls_keras.models import build_model, encoder_groups, encoder_levels, load_pretrained, pretrained_source
from marsls_keras.plugins import construct
from marsls_keras.runtime import scope, use_xla
from marsls_keras.signals import Signals
from marsls_keras.training.callbacks.backup_state import BackupState, NotFinite, TrainingState, read_state
from marsls_keras.training.callbacks.best_checkpoint import BestCheckpoint
from marsls_keras.training.callbacks.history import HistoryLog
from marsls_keras.training.callbacks.last_checkpoint import LastCheckpoint
from marsls_keras.training.callbacks.progress import ProgressDisplay
from marsls_keras.training.callbacks.stop_on_trouble import Diverged, StopOnTrouble
from marsls_keras.training.callbacks.weight_checkpoint import WeightCheckpoint
from marsls_keras.training.fold_data import FoldData
from marsls_keras.training.multi_device import LossScale, uneven_shares
from marsls_keras.training.optimizer import build_optimizer
from marsls_keras.training.recovery import Recovery

_ROLLBACKS = 3
"""Largest number of rollbacks after a divergence."""

_HALVINGS = 3
"""Largest number of times that the batch size is halved."""

_FIRST_STEPS = 5
"""Steps after which memory is no longer expected to run out, since later steps need no more of it."""


class Attempt:
    """Build the network and train it from the start or from a saved state, until training ends or fails.

    It fails by divergence or for lack of memory; `roll_back` and `halve` then return the settings of the next attempt.
    An attempt that resumes in the middle of an epoch ends with that epoch, since Keras counts whole epochs.

    Args:
        data: Training and held-out tiles of the fold.
        recovery: Batch size, accumulation and learning-rate factor of this attempt.
        state: The state to resume from; None starts from the beginning.
        devices: Number of GPUs that share each batch.
        signals: Signals that ask training to stop.
        progress: Progress display and log.
        callbacks: Called after all others, when an epoch has been saved and shown.

    Example:
        >>> attempt = Attempt(data, Recovery(16, 1), None, 1, signals, progress)  # doctest: +SKIP
        >>> checkpoint, finished = attempt.train(attempt.build())                 # doctest: +SKIP
        >>> checkpoint.best["epoch"], finished                                    # doctest: +SKIP
        (41, True)
    """

    def __init__(
        self,
        data: FoldData,
        recovery: Recovery,
        state: TrainingState | None,
        devices: int,
        signals: Signals,
        progress: ProgressDisplay,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        self.data, self.recovery, self.state, self.devices, self.signals, self.progress = (
            data,
            recovery,
            state,
            devices,
            signals,
            progress,
        )
        self.config, network = data.run.config.training, data.run.config.model
        self.callbacks = [
            *(construct(name, options, "training.callbacks") for name, options in self.config.callbacks.items()),
            *callbacks,
        ]
        self.pretrained = pretrained_source(network.name, network.options, network.pretrained)
        self.folder: Path = data.run.fold_path(data.fold)
        self.batches = data.batches(recovery.batch_size)
        self.steps = self.batches.steps_per_epoch
        self.steps_done = 0

    def train(self, model: keras.Model) -> tuple[WeightCheckpoint, bool]:
        """Train a network that `build` returned.

        Returns:
            The callback that kept weights, and whether training is complete.

        Raises:
            Diverged: If a loss or a weight became NaN or infinite.
            Interrupted: If a signal asked training to stop.
            RunError: If a file cannot be written.
        """
        state, epochs = self.state, self.config.epochs
        checkpoint = self._checkpoint()
        first, step = (state.epochs, state.step) if state else (0, 0)
        rows = list(state.history) if state else []
        if state:
            state.restore(model, checkpoint)
        if checkpoint.stopped or first >= epochs:
            return checkpoint, True
        last = first + 1 if step else epochs
        backup = BackupState(self.folder / "state", checkpoint, rows, epochs, self.recovery)
        stop = StopOnTrouble(backup, self.signals, self.steps, state)
        self.progress.follow(rows, self.steps, self.recovery.batch_size, step)
        try:
            model.fit(
                self.batches.dataset(first * self.steps + step),
                epochs=last,
                initial_epoch=first,
                steps_per_epoch=self.steps - step,
                shuffle=False,  # the pipeline shuffles
                verbose=0,
                callbacks=[
                    *([] if checkpoint.statistics is None else [checkpoint.statistics]),
                    stop,
                    checkpoint,
                    HistoryLog(self.folder / "history.csv", rows, (self.steps - step) * self.recovery.batch_size),
                    backup,
                    self.progress,
                    keras.callbacks.TensorBoard(self.folder / "tensorboard", write_graph=False),
                    *self.callbacks,
                ],
            )
        except NotFinite:
            raise Diverged(stop.epoch, None) from None
        finally:
            self.steps_done = stop.done
            self.progress.bar.stop()  # also after an exception, or the terminal would be left without its cursor
        return checkpoint, checkpoint.stopped or last == epochs

    def _checkpoint(self) -> WeightCheckpoint:
        """Return the callback that keeps weights: the last ones if nothing is held out, else the best ones."""
        if self.data.kept is not None:
            return LastCheckpoint(self.data.kept, self.metric, self.folder, self.config, self.batches)
        return BestCheckpoint(self.data.evaluation, self.metric, self.folder, self.config, self.batches)

    def build(self) -> keras.Model:
        """Build and compile the network, and create the optimiser's variables."""
        config = self.data.run.config
        keras.utils.set_random_seed(self.config.seed)  # every attempt starts from the same weights
        with scope(self.devices):
            self.metric = SegmentationCounts()
            model = build_model(config.model.name, bands=self.data.normalizer.bands, **config.model.options)
            if self.pretrained and not self.state:  # a state holds them already, trained further
                groups = encoder_groups(config.model.name, self.data.normalizer.bands, config.model.options)
                write_json(self.folder / "pretrained.json", load_pretrained(model, self.pretrained, groups))
            if self.devices > 1:
                for layer in model._flatten_layers():
                    if isinstance(layer, keras.layers.BatchNormalization):
                        layer.synchronized = True  # statistics of the whole batch, not of each device's share
            encoder = encoder_levels(config.model.name, config.model.options)
            optimizer = build_optimizer(
                self.config, self.steps, encoder, self.recovery.factor, self.recovery.accumulate
            )
            model.compile(
                optimizer=LossScale(optimizer) if self.config.precision == "mixed_float16" else optimizer,
                loss=build_loss(config.loss, self.data.labels),
                weighted_metrics=[self.metric],
                jit_compile=use_xla(self.config, self.devices),
            )
            model.optimizer.build(model.trainable_variables)
        return model

    def roll_back(self, error: Diverged) -> Recovery:
        """Return the recovery after a divergence: resume from the last good state with half the learning rate.

        Raises:
            RunError: If training was rolled back too often already.
        """
        where = f"epoch {error.epoch + 1}" + ("" if error.step is None else f", step {error.step + 1}")
        tiles = ""
        if error.step is not None:
            ids = [self.data.train.refs[i].id for i in self.batches.tiles_at(error.epoch * self.steps + error.step)]
            tiles = f" The tiles of that step: {', '.join(ids)}."
        what = f"NaN or infinite loss or weights in {where}.{tiles}"
        good = read_state(self.folder / "state")
        if self.recovery.rollbacks == _ROLLBACKS:
            best = good.checkpoint["best"]["file"] if good else None
            kept = f" The best weights so far are kept in {self.folder / best}." if best else ""
            raise RunError(
                f"Training of fold {self.data.fold} of run {self.data.run.name} diverged: {what} "
                f"Going back {_ROLLBACKS} times and halving the learning rate each time did not help.{kept} "
                "Lower training.learning_rate, set training.clip_norm, or use precision float32."
            )
        recovery = replace(self.recovery, rollbacks=self.recovery.rollbacks + 1, trouble=(*self.recovery.trouble, what))
        begin = "the beginning"
        if good:
            begin = f"the state after epoch {good.epochs}" + (f" and step {good.step} of the next" if good.step else "")
        self.progress.say(f"{what} Going back to {begin} with the learning rate × {recovery.factor:g}.")
        return recovery

    def halve(self, reason: str) -> Recovery:
        """Return the recovery after memory ran out: half the batch size, twice as many batches per update.

        Raises:
            RunError: If a smaller batch cannot help, or the batch size was halved too often already.
        """
        now, tiles = self.recovery, self.recovery.batch_size
        uneven = tiles % 2 or uneven_shares(self.data.run.config, self.data.train, tiles // 2, self.devices)
        if self.state or self.steps_done > _FIRST_STEPS or uneven or self.config.batch_size // tiles == 2**_HALVINGS:
            raise RunError(
                f"Memory ran out with {tiles} tiles a step. Lower training.batch_size (training.accumulate makes up "
                f"for it) or inference.batch_size, or use precision mixed_bfloat16. ({reason})"
            )
        halved = replace(now, batch_size=tiles // 2, accumulate=now.accumulate * 2)
        what = (
            f"Memory ran out with {tiles} tiles a step: {halved.batch_size} now, {halved.accumulate} steps an update."
        )
        self.progress.say(what)
        return replace(halved, trouble=(*now.trouble, what))
