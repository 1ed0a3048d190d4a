"""Train folds of a run, or its refit on all tiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from competition.processes import train_side_by_side
from marsls_keras.backend import backend
from marsls_keras.bands.releases import expand_bands
from marsls_keras.config import Config, load_config
from marsls_keras.data.decoded.checks import barren
from marsls_keras.data.fingerprint import fingerprint
from marsls_keras.data.load_folder import load_folder
from marsls_keras.data.pipeline.window_sampling import sampling_note, window_sides
from marsls_keras.data.splits import FULL, Fold, make_splits, require_fold
from marsls_keras.errors import InputError
from marsls_keras.files import write_json
from marsls_keras.inference.inputs import Say
from marsls_keras.losses import read_loss
from marsls_keras.models import (
    build_model,
    encoder_groups,
    encoder_levels,
    is_depthwise,
    load_pretrained,
    pretrained_source,
    require_checkpoint,
    require_encoder,
    require_options,
    require_size,
)
from marsls_keras.progress import stage
from marsls_keras.records import read_record
from marsls_keras.runs.fold_lock import discard, require_fresh
from marsls_keras.runs.records import RecipeRecord
from marsls_keras.runs.run import Run, with_epochs
from marsls_keras.runtime import require_devices
from marsls_keras.training.pseudo_labelling import pseudo_labelled, require_pseudo
from marsls_keras.training.refit import as_full, plan_full


def train(
    config: str | None,
    settings: list[str],
    data: Path | None,
    fold: str,
    runs: Path,
    name: str | None,
    resume: bool,
    overwrite: bool,
    say: Say,
    devices: int = 1,
    environments: Sequence[dict[str, str]] = (),
    callbacks: Sequence[Any] = (),
    epochs: int | None = None,
    pseudo: Path | None = None,
    confidence: float | None = None,
) -> tuple[Run, list[dict[str, Any]]]:
    """Train one fold or all, or the refit on all tiles, and return the run and the metrics of the folds that were trained.

    With environments of several processes, as `device_environments` gives them, that many folds are trained at once. Callbacks of Keras see
    the training of folds in this process, each epoch once it is saved. Without `config` a run that is there goes on with its own, and
    without `data` with its own data; a new one has the recipe "default" and the folder `data`. `epochs` is the configuration's number of
    epochs; but where a run's refit is asked for, it is that of the refit alone. `pseudo` is a folder of images that the refit
    is to train on, too, and `confidence` how certain their pseudo-labels are (`marsls_keras.training.pseudo_labelling`).

    Raises:
        InputError: If configuration, data or fold are wrong, a fold has begun already, or no fold says how long a refit should train.
        RunError: If training fails.
    """
    if name is not None:
        require_name(name)
    begun = runs / (name or config or "default")
    earlier = Run.open(begun) if config is None and (begun / "splits.json").exists() else None
    settings = [*settings, *([f"training.epochs={epochs}"] if epochs is not None else [])]
    source = str(begun / "config.yaml") if earlier else config or "default"
    recipe, parsed = load_config(source, settings)
    name = name or (begun.name if earlier else recipe)
    data = data or (earlier.data_root if earlier else Path("data"))
    require_name(name)
    require_parts(parsed)
    if fold not in ("all", FULL) and not fold.isdecimal():
        raise InputError(f"--fold {fold}: expected a number from 0, all or full.")
    require_pseudo(fold, pseudo, confidence)
    if parsed.model.pretrained and not resume:
        require_checkpoint(parsed.model.pretrained)
    if fold.isdecimal():
        require_fold(int(fold), parsed.data)
    tiles = load_folder(data, parsed.data)
    splits = make_splits(tiles, parsed.data, parsed.training.seed)
    folds: list[Fold] = list(range(splits.folds)) if fold == "all" else [FULL if fold == FULL else int(fold)]
    for k in folds:
        splits.require_fold(k)
    if earlier and parsed.training.epochs == earlier.config.training.epochs and not (resume or _sets_epochs(settings) or fold == FULL):
        require_recipe_epochs(earlier, runs, folds)
    known = Run.open(runs / name) if (runs / name / "splits.json").exists() else None
    full = None
    if fold == FULL:
        if known is not None and epochs is not None:  # those of the folds stay as they are
            parsed = with_epochs(parsed, known.config.training.epochs)
        full = plan_full(known or Run(runs / name, parsed, splits, {}), epochs, resume)
        if pseudo is not None and not full.folds:
            raise InputError(f"--pseudo: run {name} has no finished fold that could label images. Train one first, or all with --fold all.")
    pool = {tile["id"] for tile in splits.tiles}
    tiles = tiles.subset([i for i, ref in enumerate(tiles.refs) if ref.id in pool])
    for problem in barren(tiles):
        say(f"Warning: {problem.message}")
    # What the network refuses, it refuses before there is a run: another try would find it with another configuration.
    sides = window_sides(parsed.data, tiles.refs, *tiles.images.shape[1:3])
    if note := sampling_note(parsed.data, sides):
        say(note)
    for height, width in (tiles.images.shape[1:3], *((side, side) for side in sides)):
        require_size(parsed.model.name, parsed.model.options, height, width)
    facts = fingerprint(tiles, data)
    if known is not None:  # what it refuses, it refuses at once
        run = Run.create(runs / name, parsed, splits, facts, resume)
        for k in folds:
            if not overwrite and (fold != "all" or run.trouble(k) is not None):
                require_fresh(run if full is None else as_full(run, full), k, resume)
    backend()
    # Modules that derive classes from those of Keras.
    from marsls_keras.training.multi_device import uneven_shares
    from marsls_keras.training.train_fold import require_labels, train_fold

    bands = expand_bands(parsed.data.bands, tiles.bands)
    with stage("Building the network"):
        model = build_model(parsed.model.name, bands, **parsed.model.options)
    checkpoint = pretrained_source(parsed.model.name, parsed.model.options, parsed.model.pretrained)
    if checkpoint and not resume:  # a fold that goes on does not read it again
        load_pretrained(model, checkpoint, encoder_groups(parsed.model.name, bands, parsed.model.options))
    del model
    for k in folds:
        held_out = splits.held_out(k)
        require_labels(parsed, k, tiles.masks[[ref.id not in held_out for ref in tiles.refs]])
    if trouble := uneven_shares(parsed, tiles, parsed.training.batch_size, devices):
        raise InputError(trouble)
    if not environments:  # else the processes that train, which have the devices, find out
        require_devices(parsed.training, devices, is_depthwise(parsed.model.name, parsed.model.options))
    run = Run.create(runs / name, parsed, splits, facts, resume)
    if known is None and _sets_epochs(settings):
        usual = load_config(source, [setting for setting in settings if not _sets_epochs([setting])])[1].training
        if usual.epochs != parsed.training.epochs:
            write_json(run.path / "recipe.json", {"recipe": source, "epochs": usual.epochs})
    labels = None
    if full is not None:
        if not overwrite:  # before images are predicted
            require_fresh(as_full(run, full), FULL, resume)
        full, labels = pseudo_labelled(run, full, tiles, pseudo, confidence, resume, say)
    todo: list[Fold] = []
    for k in folds:
        if overwrite:
            discard(run, k)
        elif fold == "all" and run.trouble(k) is None:
            say(f"Fold {k} of run {run.name} is finished already.")
            continue
        require_fresh(run if full is None else as_full(run, full), k, resume)
        todo.append(k)
    if not environments or not todo:
        return run, [train_fold(run, k, tiles, resume, devices, callbacks, full, labels) for k in todo]
    common = [
        "train",
        "--run",
        run.name,
        "--runs",
        str(runs),
        "--data",
        str(data),
        "--epochs",
        str(parsed.training.epochs),
        *(["--resume"] if resume else []),
    ]
    train_side_by_side({int(k): [*common, "--fold", str(k)] for k in todo}, environments, say)
    return run, [run.metrics(k) for k in todo]


def _sets_epochs(settings: Sequence[str]) -> bool:
    return any(setting.split("=")[0].strip() == "training.epochs" for setting in settings)


def trial_of(run: Run) -> dict[str, Any] | None:
    """Return the recipe that a run was begun with, and its epochs, if the run was begun with another number of them."""
    path = run.path / "recipe.json"
    usual = read_record(path, RecipeRecord) if path.exists() else None
    return None if usual is None or usual["epochs"] == run.config.training.epochs else usual


def require_recipe_epochs(run: Run, runs: Path, folds: Sequence[Fold]) -> None:
    """Refuse to train folds with a number of epochs that a run was once begun with on trial, without being told again.

    Raises:
        InputError: If a fold is to be trained and the run was begun with another number than its recipe's.
    """
    usual, epochs = trial_of(run), run.config.training.epochs
    if usual is None or all(run.trouble(fold) is None for fold in folds):
        return
    chosen = "" if len(folds) > 1 else f" --fold {folds[0]}"
    common = f"marsls train --run {run.name}" + ("" if runs == Path("runs") else f" --runs {runs}")
    longer = ""
    if usual["epochs"] > epochs:
        longer = f"\nTo train with the recipe's, with what is finished going on: {common}{chosen} --resume --epochs {usual['epochs']}"
    raise InputError(
        f"Run {run.name} was begun with {epochs} epochs; its recipe {usual['recipe']} has {usual['epochs']}.\n"
        f"To go on with {epochs}: {common}{chosen} --epochs {epochs}{longer}\n"
        f"To begin anew with the recipe: marsls train --config {usual['recipe']} --run {run.name}-{usual['epochs']}"
        + ("" if runs == Path("runs") else f" --runs {runs}")
    )


def require_name(name: str) -> None:
    """Refuse what cannot be the name of a run.

    Raises:
        InputError: If it is empty, leads elsewhere, or holds a +, which joins the names of an ensemble, or an @, which names a set of
            weights of a run.
    """
    if not name.strip(". ") or any(sign in name for sign in "/\\+@"):
        whole = " A run is trained whole, with all its sets of weights." if "@" in name else ""
        raise InputError(f"--run {name}: expected a plain name, without slashes and without + and @.{whole}")


def require_parts(config: Config) -> None:
    """Refuse a configuration whose loss, network or options there are not, as far as can be told without building the network.

    Raises:
        InputError: If so.
    """
    read_loss(config.loss, positive_weight=1.0)  # the weight of a fold's tiles is known later
    require_options(config.model.name, config.model.options)
    require_encoder(config.training, encoder_levels(config.model.name, config.model.options))
