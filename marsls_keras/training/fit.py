"""Training one fold: from decoded tiles to a finished fold directory."""

from __future__ import annotations

import datetime
import shutil
import time
from typing import Any

import keras

from marsls_keras.config import write_config
from marsls_keras.counts import confusion
from marsls_keras.data.integrity import Tiles
from marsls_keras.data.normalize import Normalizer
from marsls_keras.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from marsls_keras.errors import InputError, RunError
from marsls_keras.files import sha256, write_json
from marsls_keras.inference.oof import save_oof
from marsls_keras.inference.predict import Member, predict_views
from marsls_keras.losses import build_loss
from marsls_keras.metrics import SegmentationCounts
from marsls_keras.models import build_model, require_size
from marsls_keras.report.plots import save_curves
from marsls_keras.training.device import prepare, use_xla
from marsls_keras.training.ema import KeepBest
from marsls_keras.training.optim import build_optimizer
from marsls_keras.training.progress import Live, Rows
from marsls_keras.training.resume import SaveState, restore_state
from marsls_keras.training.run_dir import Run, read_history


def train_fold(run: Run, fold: int, tiles: Tiles, resume: bool = False) -> dict[str, Any]:
    """Train one fold of a run and predict the tiles it holds out.

    Args:
        run: The run.
        fold: Number of the fold.
        tiles: Decoded tiles; at least all of the run's pool.
        resume: Go on from the last saved epoch of an interrupted training.

    Returns:
        The content of metrics.json.

    Raises:
        InputError: If the fold does not exist or has begun already, or the tiles do not fit the network.
        RunError: If training diverges or a file cannot be written.
    """
    config, folder = run.config, run.fold_path(fold)
    run.splits.require_fold(fold)
    require_fresh(run, fold, resume)
    began = time.perf_counter()
    require_size(config.model.name, config.model.options, *tiles.images.shape[1:3])
    environment = prepare(config.training)
    train, held_out = fold_tiles(run, fold, tiles)
    normalizer = Normalizer.fit(train.images, config.data)
    model = build_model(config.model.name, bands=len(config.data.bands), **config.model.options)
    steps = steps_per_epoch(len(train), config.training.batch_size)
    metric = SegmentationCounts()
    model.compile(
        optimizer=build_optimizer(config.training, steps),
        loss=build_loss(config.loss),
        weighted_metrics=[metric],
        jit_compile=use_xla(config.training),
    )
    model.optimizer.build(model.trainable_variables)

    write_config(folder / "config.yaml", config)
    write_json(folder / "environment.json", environment)
    write_json(folder / "normalization.json", normalizer.to_json())
    batches = evaluation_batches(normalizer.apply(held_out.images), held_out.masks, batch_size=config.inference.batch_size)
    keep = KeepBest(batches, metric, folder / "best.weights.h5", ema=config.training.ema_decay is not None)
    rows: list[dict[str, float]] = []
    live = Live(f"{run.name} fold {fold}", rows, config.training.epochs, steps, config.training.batch_size, folder / "log.txt")
    state = restore_state(folder / "state", model) if resume else None
    if state:
        rows += state["history"]
        keep.best = state["best"]
        live.say(f"Resuming after epoch {state['epoch'] + 1}.")
    device = ", ".join(environment["devices"])
    live.say(
        f"Training {config.model.name} ({model.count_params():,} parameters) on {len(train)} tiles, {len(held_out)} held out; "
        f"{environment['backend']} on {device}, {config.training.precision}, XLA {'on' if environment['xla'] else 'off'}"
        f"{', deterministic' if config.training.deterministic else ''}."
    )
    first = len(rows)
    try:
        model.fit(
            training_batches(
                normalizer.apply(train.images),
                train.masks,
                batch_size=config.training.batch_size,
                augmentation=config.augmentation,
                seed=config.training.seed,
                epochs=config.training.epochs,
                start_epoch=first,
            ),
            epochs=config.training.epochs,
            initial_epoch=first,
            steps_per_epoch=steps,
            shuffle=False,  # the pipeline has done it
            verbose=0,
            callbacks=[
                keras.callbacks.TerminateOnNaN(raise_error=True),
                keep,
                Rows(folder / "history.csv", rows, steps * config.training.batch_size),
                SaveState(folder / "state", keep, rows),
                live,
                keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False),
            ],
        )
    except RuntimeError as error:
        if "NaN or Inf loss" not in str(error):
            raise
        kept = f" The best weights so far are kept in {keep.path}." if keep.path.exists() else ""
        raise RunError(
            f"Training of fold {fold} of run {run.name} diverged: {error}{kept} Lower training.learning_rate, or use precision float32."
        ) from error
    else:
        if keep.best["epoch"] < 0:
            raise RunError(f"Training of fold {fold} of run {run.name} never gave a finite loss on the held-out tiles.")
    finally:
        live.bar.stop()  # also when training was interrupted, or the terminal would be left without its cursor
    return _finish(run, Member(run, fold, model, normalizer), held_out, keep.best, began)


def discard(run: Run, fold: int) -> None:
    """Put an earlier result of a fold aside as fold_<k>.old, so that it can be trained anew without losing it."""
    folder = run.fold_path(fold)
    if folder.exists():
        aside = folder.with_name(f"{folder.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)


def fold_tiles(run: Run, fold: int, tiles: Tiles) -> tuple[Tiles, Tiles]:
    """Return the tiles a fold trains on and those it holds out.

    Raises:
        InputError: If a tile of the run's pool is not there.
    """
    position = {ref.id: i for i, ref in enumerate(tiles.refs)}
    absent = [tile["id"] for tile in run.splits.tiles if tile["id"] not in position]
    if absent:
        raise InputError(f"{len(absent)} tiles of run {run.name} are not in the data, such as {absent[0]}.")
    held_out = run.splits.held_out(fold)
    train = [position[tile["id"]] for tile in run.splits.tiles if tile["id"] not in held_out]
    return tiles.subset(train), tiles.subset([position[tile["id"]] for tile in run.splits.tiles if tile["id"] in held_out])


def require_fresh(run: Run, fold: int, resume: bool) -> None:
    """Refuse to train a fold that has begun, unless it is unfinished and to be resumed.

    Raises:
        InputError: If the fold is finished, from another configuration, or unfinished and not to be resumed.
    """
    folder = run.fold_path(fold)
    if not (folder / "config.yaml").exists():
        return
    trouble = run.trouble(fold)
    if trouble is None:
        raise InputError(f"Fold {fold} of run {run.name} is finished. Train it anew with --overwrite, or another run with --run.")
    if not (resume and trouble.startswith(f"fold {fold} is unfinished")):
        raise InputError(f"Run {run.name}: {trouble}\nOr begin the fold anew with --overwrite.")


def _finish(run: Run, member: Member, held_out: Tiles, best: dict[str, Any], began: float) -> dict[str, Any]:
    """Predict the held-out tiles with the best weights and write what marks the fold as finished, metrics.json last."""
    folder = run.fold_path(member.fold)
    weights = folder / "best.weights.h5"
    keras.saving.load_weights(member.model, weights, objects_to_skip=[member.model.optimizer])
    (probability,) = predict_views(member, held_out.images, ["identity"])
    save_oof(folder / "oof.npz", [ref.id for ref in held_out.refs], {"identity": probability}, sha256(weights))
    counts = confusion(held_out.masks, probability >= 0.5)
    rows = read_history(folder / "history.csv")
    save_curves(folder / "curves.png", rows, f"{run.name}, fold {member.fold}")
    metrics = {
        "fold": member.fold,
        "epochs": len(rows),
        "best_epoch": best["epoch"],
        "best_weights": best["weights"],
        "weights_sha256": sha256(weights),
        "tiles": len(held_out),
        "scores": counts.scores(),
        "counts": {"tp": counts.tp, "fp": counts.fp, "fn": counts.fn, "tn": counts.tn},
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "seconds_with_setup": round(time.perf_counter() - began, 1),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write_json(folder / "metrics.json", metrics)
    shutil.rmtree(folder / "state", ignore_errors=True)  # nothing is left to resume
    return metrics
