"""A stretch of training: from a state, or the beginning, to where training ends, diverges, or runs out of memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.grid.tile_grid import Mosaic
from marsls_keras.data.normalization import Inputs, Normalizer
from marsls_keras.data.pipeline.batches import TrainingBatches, evaluation_batches
from marsls_keras.data.pipeline.window_sampling import window_sides
from marsls_keras.data.splits import Fold
from marsls_keras.errors import RunError
from marsls_keras.files import write_json
from marsls_keras.losses import build_loss, positive_weight
from marsls_keras.metrics import SegmentationCounts
from marsls_keras.models import build_model, encoder_groups, encoder_levels, load_pretrained, pretrained_source
from marsls_keras.runs.run import Run
from marsls_keras.runtime import scope, use_xla
from marsls_keras.signals import Signals
from marsls_keras.training.callbacks.backup_state import NotFinite, Plan, SaveState, State, read_state
from marsls_keras.training.callbacks.best_checkpoint import KeepBest
from marsls_keras.training.callbacks.last_checkpoint import KeepLast
from marsls_keras.training.callbacks.progress import Live, Rows
from marsls_keras.training.callbacks.stop_on_trouble import Diverged, Watch
from marsls_keras.training.callbacks.weight_checkpoint import Keep
from marsls_keras.training.multi_device import LossScale, uneven_shares
from marsls_keras.training.optimizer import build_optimizer

_ROLLBACKS = 3
_HALVINGS = 3
_FIRST_STEPS = 5
"""Memory that lasts for so many steps lasts for all: later steps need no more."""


@dataclass(frozen=True)
class FoldData:
    """What a fold trains on and what it holds out.

    Attributes:
        run: The run.
        fold: Number of the fold, or "full".
        train: Training tiles.
        held_out: The tiles that the fold is judged on.
        normalizer: Normalisation with the statistics of the training tiles.
        keep: The weights that are kept where nothing is held out to judge them: "last", "ema" or "swa".
        weights: Weights of the pixels of the training tiles, float32 (N, H, W), 0 where there is no label; None for 1 everywhere.
    """

    run: Run
    fold: Fold
    train: Tiles
    held_out: Tiles
    normalizer: Normalizer
    keep: str | None = None
    weights: np.ndarray | None = None

    @property
    def inputs(self) -> Inputs:
        """The bands of the training tiles that are carried, normalised, (N, H, W, C), made where they are asked for."""
        return Inputs(self.train.images, self.normalizer, self.train.bands)

    @property
    def labels(self) -> np.ndarray:
        """The labels of the training tiles, uint8, of the pixels that have one."""
        return self.train.masks if self.weights is None else self.train.masks[self.weights > 0]

    @cached_property
    def evaluation(self) -> Any:
        """The held-out tiles in batches, as the network sees them."""
        images = Inputs(self.held_out.images, self.normalizer, self.held_out.bands)
        size = self.run.config.inference.batch_size
        return evaluation_batches(images, self.held_out.masks, batch_size=size, finish=self.normalizer.assemble)

    @property
    def window_sides(self) -> tuple[int, ...]:
        """The sides of the windows in pixels that training samples; none where it sees single tiles."""
        return window_sides(self.run.config.data, self.train.refs, *self.train.images.shape[1:3])

    def batches(self, batch_size: int) -> TrainingBatches:
        """Return the training batches of this many tiles."""
        config, (_, height, width, _) = self.run.config, self.train.images.shape
        sides = self.window_sides
        return TrainingBatches(
            self.inputs,
            self.train.masks,
            batch_size=batch_size,
            augmentation=config.augmentation,
            bands=self.normalizer.directions.carried,
            units=self.normalizer.units,
            seed=config.training.seed,
            epochs=config.training.epochs,
            mosaic=Mosaic.of(self.train.refs, height, width, max(sides)) if sides else None,
            sizes=sides,
            weights=self.weights,
            finish=self.normalizer.assemble,
        )


class Leg:
    """A stretch of training that goes on from a state, or begins, and ends where training ends, diverges, or runs out of memory.

    A leg that goes on within an epoch ends with that epoch, since Keras counts whole epochs.

    Args:
        data: What is trained on.
        plan: What is done differently from the configuration.
        state: The state to go on from.
        devices: GPUs that share each batch.
        signals: Signals that ask training to stop.
        live: Where progress is shown.
        callbacks: Called after all others, when an epoch has been saved and shown.
    """

    def __init__(
        self,
        data: FoldData,
        plan: Plan,
        state: State | None,
        devices: int,
        signals: Signals,
        live: Live,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        self.data, self.plan, self.state, self.devices, self.signals, self.live = data, plan, state, devices, signals, live
        self.callbacks = callbacks
        self.config, network = data.run.config.training, data.run.config.model
        self.pretrained = pretrained_source(network.name, network.options, network.pretrained)
        self.folder: Path = data.run.fold_path(data.fold)
        self.batches = data.batches(plan.batch_size)
        self.steps = self.batches.steps_per_epoch
        self.steps_done = 0

    def train(self, model: keras.Model) -> tuple[Keep, bool]:
        """Train what `build` gave; return the callback that kept weights, and whether training has come to its end.

        Raises:
            Diverged: If a loss or a weight became NaN or infinite.
            Interrupted: If a signal asked training to stop.
            RunError: If a file cannot be written.
        """
        state, epochs = self.state, self.config.epochs
        keep = self._keep()
        first, step = (state.epochs, state.step) if state else (0, 0)
        rows = list(state.history) if state else []
        if state:
            state.restore(model, keep)
        if keep.stopped or first >= epochs:
            return keep, True
        last = first + 1 if step else epochs
        save = SaveState(self.folder / "state", keep, rows, epochs, self.plan)
        watch = Watch(save, self.signals, self.steps, state)
        self.live.follow(rows, self.steps, self.plan.batch_size, step)
        try:
            model.fit(
                self.batches.dataset(first * self.steps + step),
                epochs=last,
                initial_epoch=first,
                steps_per_epoch=self.steps - step,
                shuffle=False,  # the pipeline has done it
                verbose=0,
                callbacks=[
                    *([] if keep.statistics is None else [keep.statistics]),
                    watch,
                    keep,
                    Rows(self.folder / "history.csv", rows, (self.steps - step) * self.plan.batch_size),
                    save,
                    self.live,
                    keras.callbacks.TensorBoard(self.folder / "tensorboard", write_graph=False),
                    *self.callbacks,
                ],
            )
        except NotFinite:
            raise Diverged(watch.epoch, None) from None
        finally:
            self.steps_done = watch.done
            self.live.bar.stop()  # also when training was interrupted, or the terminal would be left without its cursor
        return keep, keep.stopped or last == epochs

    def _keep(self) -> Keep:
        if self.data.keep is not None:
            return KeepLast(self.data.keep, self.metric, self.folder, self.config, self.batches)
        return KeepBest(self.data.evaluation, self.metric, self.folder, self.config, self.batches)

    def build(self) -> keras.Model:
        """Build and compile the network, with the optimiser's variables."""
        config = self.data.run.config
        keras.utils.set_random_seed(self.config.seed)  # every leg begins with the same weights
        with scope(self.devices):
            self.metric = SegmentationCounts()
            model = build_model(config.model.name, bands=self.data.normalizer.bands, **config.model.options)
            if self.pretrained and not self.state:  # else the state has them, trained
                groups = encoder_groups(config.model.name, self.data.normalizer.bands, config.model.options)
                write_json(self.folder / "pretrained.json", load_pretrained(model, self.pretrained, groups))
            if self.devices > 1:
                for layer in model._flatten_layers():
                    if isinstance(layer, keras.layers.BatchNormalization):
                        layer.synchronized = True  # statistics of the whole batch, not of each device's share
            encoder = encoder_levels(config.model.name, config.model.options)
            optimizer = build_optimizer(self.config, self.steps, encoder, self.plan.factor, self.plan.accumulate)
            model.compile(
                optimizer=LossScale(optimizer) if self.config.precision == "mixed_float16" else optimizer,
                loss=build_loss(config.loss, positive_weight(self.data.labels) if "weighted_bce" in config.loss else None),
                weighted_metrics=[self.metric],
                jit_compile=use_xla(self.config, self.devices),
            )
            model.optimizer.build(model.trainable_variables)
        return model

    def roll_back(self, error: Diverged) -> Plan:
        """Return the plan after a divergence: the learning rate is halved, and training goes on from the last good state.

        Raises:
            RunError: If training has gone back too often.
        """
        where = f"epoch {error.epoch + 1}" + ("" if error.step is None else f", step {error.step + 1}")
        tiles = ""
        if error.step is not None:
            ids = [self.data.train.refs[i].id for i in self.batches.tiles_at(error.epoch * self.steps + error.step)]
            tiles = f" The tiles of that step: {', '.join(ids)}."
        what = f"NaN or infinite loss or weights in {where}.{tiles}"
        good = read_state(self.folder / "state")
        if self.plan.rollbacks == _ROLLBACKS:
            best = good.keep["best"]["file"] if good else None
            kept = f" The best weights so far are kept in {self.folder / best}." if best else ""
            raise RunError(
                f"Training of fold {self.data.fold} of run {self.data.run.name} diverged: {what} Going back {_ROLLBACKS} times and halving "
                f"the learning rate each time did not help.{kept} Lower training.learning_rate, set training.clip_norm, or use "
                "precision float32."
            )
        plan = replace(self.plan, rollbacks=self.plan.rollbacks + 1, trouble=(*self.plan.trouble, what))
        begin = "the beginning"
        if good:
            begin = f"the state after epoch {good.epochs}" + (f" and step {good.step} of the next" if good.step else "")
        self.live.say(f"{what} Going back to {begin} with the learning rate × {plan.factor:g}.")
        return plan

    def halve(self, reason: str) -> Plan:
        """Return the plan after memory ran out: half the batch, twice as many of them an update.

        Raises:
            RunError: If this cannot help, or was tried often enough.
        """
        tried, half = self.config.batch_size // self.plan.batch_size, self.plan.batch_size // 2
        uneven = self.plan.batch_size % 2 or uneven_shares(self.data.run.config, self.data.train, half, self.devices)
        if self.state or self.steps_done > _FIRST_STEPS or uneven or tried == 2**_HALVINGS:
            raise RunError(
                f"Memory ran out with {self.plan.batch_size} tiles a step. Lower training.batch_size (training.accumulate makes up for it) "
                f"or inference.batch_size, or use precision mixed_bfloat16. ({reason})"
            )
        plan = replace(self.plan, batch_size=half, accumulate=self.plan.accumulate * 2)
        what = f"Memory ran out with {self.plan.batch_size} tiles a step: {plan.batch_size} now, {plan.accumulate} steps an update."
        self.live.say(what)
        return replace(plan, trouble=(*self.plan.trouble, what))
