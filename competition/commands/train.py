"""Train the folds of a run, or its refit on all tiles.

A request is resolved and checked, then tiles and run are prepared, then the folds are trained.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from competition.commands.recipe_epochs import note_recipe, require_recipe_epochs, sets_epochs
from competition.processes import train_side_by_side
from competition.recipe_parts import require_parts
from marsls_keras.backend import import_backend
from marsls_keras.bands.names import expand_bands
from marsls_keras.config import Config, load_config, read_config
from marsls_keras.data.decoded.checks import barren
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.fingerprint import fingerprint
from marsls_keras.data.load_folder import load_folder
from marsls_keras.data.pipeline.window_sampling import sampling_note, window_sides
from marsls_keras.data.splits import FULL, Fold, Splits, make_splits, require_fold
from marsls_keras.errors import InputError
from marsls_keras.models import (
    build_model,
    encoder_groups,
    is_depthwise,
    load_pretrained,
    pretrained_source,
    require_checkpoint,
    require_size,
)
from marsls_keras.progress import stage
from marsls_keras.runs.fold import with_epochs
from marsls_keras.runs.fold_lock import discard, require_fresh
from marsls_keras.runs.names import require_plain
from marsls_keras.runs.run import Run, read_history
from marsls_keras.runtime import require_devices
from marsls_keras.training.pseudo_labelling import pseudo_labelled, require_pseudo
from marsls_keras.training.refit import RefitPlan, as_refit, plan_refit

logger = logging.getLogger(__name__)

ALL = "all"
"""Value of `TrainRequest.fold` for all folds of the run."""


@dataclass(frozen=True)
class TrainRequest:
    """Arguments of `marsls train`.

    Attributes:
        config: Name of a recipe, or a YAML file. None goes on with the run's own configuration, or begins with the
            recipe "default".
        settings: Changes of the form "section.key=value", the value in YAML.
        data: Data folder. None is the run's own, or "data".
        fold: Number of a fold, "all", or "full" for the refit on all tiles.
        runs: Folder of the runs.
        name: Name of the run; that of the configuration by default.
        resume: Whether a fold that has begun goes on.
        overwrite: Whether a fold that has begun is trained anew.
        devices: GPUs of this machine that share each batch.
        environments: Environment variables of several processes, as `competition.processes.device_environments` gives
            them; that many folds are trained at once. Empty to train in this process.
        callbacks: Keras callbacks that see the training of folds in this process, each epoch once it is saved.
        epochs: Number of epochs: the configuration's, or of the refit alone if the run is there and the refit is asked
            for.
        pseudo: Folder of images that the refit trains on, too (`marsls_keras.training.pseudo_labelling`).
        confidence: How certain their pseudo-labels are.

    Example:
        >>> TrainRequest(config="unet", data=Path("data"), fold="0", epochs=3).runs
        PosixPath('runs')
    """

    config: str | None = None
    settings: Sequence[str] = ()
    data: Path | None = None
    fold: str = ALL
    runs: Path = Path("runs")
    name: str | None = None
    resume: bool = False
    overwrite: bool = False
    devices: int = 1
    environments: Sequence[Mapping[str, str]] = ()
    callbacks: Sequence[Any] = ()
    epochs: int | None = None
    pseudo: Path | None = None
    confidence: float | None = None


def train(request: TrainRequest) -> tuple[Run, list[dict[str, Any]]]:
    """Train one fold, all folds, or the refit on all tiles.

    Returns:
        The run, and the metrics of each fold that was trained.

    Raises:
        InputError: If configuration, data or fold are wrong, a fold has begun already, or no fold says how long a refit
            should train.
        RunError: If training fails.

    Example:
        >>> run, metrics = train(TrainRequest(fold="0"))  # doctest: +SKIP
    """
    resolved = _resolve(request)
    _check(resolved)
    prepared = _prepare(resolved)
    _check_network(resolved, prepared)
    return _run(resolved, prepared)


@dataclass(frozen=True)
class _Resolved:
    """A training request with its defaults filled in.

    Attributes:
        request: The request.
        source: Where the configuration is from: name or file of a recipe, or the run's own file.
        settings: All changes of it.
        config: The configuration.
        path: Folder of the run.
        data: Data folder.
        begun: The existing run, if it continues with its own configuration.
    """

    request: TrainRequest
    source: str
    settings: list[str]
    config: Config
    path: Path
    data: Path
    begun: Run | None


@dataclass(frozen=True)
class _Prepared:
    """Tiles, folds and configuration of a training, before anything is written.

    Attributes:
        config: The configuration.
        tiles: Decoded tiles of the pool.
        splits: Its folds.
        folds: The folds that are asked for.
        facts: Fingerprint of the tiles.
        known: The run, if it is there already.
        refit: The plan of the refit, if it is asked for.
    """

    config: Config
    tiles: Tiles
    splits: Splits
    folds: list[Fold]
    facts: dict[str, Any]
    known: Run | None
    refit: RefitPlan | None


def _resolve(request: TrainRequest) -> _Resolved:
    """Return the run, configuration and data that a request refers to."""
    if request.name is not None:
        require_plain(request.name)
    path = request.runs / (request.name or request.config or "default")
    begun = Run.open(path) if request.config is None and (path / "splits.json").exists() else None
    settings = [*request.settings, *([f"training.epochs={request.epochs}"] if request.epochs is not None else [])]
    source = str(path / "config.yaml") if begun else request.config or "default"
    recipe, config = (path.name, read_config(source, settings)) if begun else load_config(source, settings)
    name = request.name or recipe
    require_plain(name)
    data = request.data or (begun.data_root if begun else Path("data"))
    return _Resolved(request, source, settings, config, request.runs / name, data, begun)


def _check(resolved: _Resolved) -> None:
    """Raise errors that can be found before the tiles are read."""
    request, config = resolved.request, resolved.config
    require_parts(config)
    if request.fold not in (ALL, FULL) and not request.fold.isdecimal():
        raise InputError(f"--fold {request.fold}: expected a number from 0, all or full.")
    require_pseudo(request.fold, request.pseudo, request.confidence)
    if config.model.pretrained and not request.resume:
        require_checkpoint(config.model.pretrained)
    if request.fold.isdecimal():
        require_fold(int(request.fold), config.data)


def _prepare(resolved: _Resolved) -> _Prepared:
    """Read the tiles, divide them into folds, and raise an error if configuration, tiles and run do not fit together.

    Nothing is written, except a larger number of epochs into a run that goes on.
    """
    request, config = resolved.request, resolved.config
    tiles = load_folder(resolved.data, config.data)
    splits = make_splits(tiles, config.data, config.training.seed)
    folds = _folds(request.fold, splits)
    begun = resolved.begun
    if begun and config.training.epochs == begun.config.training.epochs:
        if not (request.resume or sets_epochs(resolved.settings) or request.fold == FULL):
            require_recipe_epochs(begun, folds)
    known = Run.open(resolved.path) if (resolved.path / "splits.json").exists() else None
    refit = None
    if request.fold == FULL:
        if known is not None and request.epochs is not None:  # the folds keep their number of epochs
            config = with_epochs(config, known.config.training.epochs)
        refit = plan_refit(known or Run(resolved.path, config, splits, {}), request.epochs, request.resume)
        if request.pseudo is not None and not refit.folds:
            raise InputError(
                f"--pseudo: run {resolved.path.name} has no finished fold that could label images. "
                "Train one first, or all with --fold all."
            )
    pool = {tile["id"] for tile in splits.tiles}
    tiles = tiles.subset([i for i, ref in enumerate(tiles.refs) if ref.id in pool])
    for problem in barren(tiles):
        logger.warning(f"Warning: {problem.message}")
    # Sizes that the network refuses must fail before the run is created, or a second try would find the wrong run.
    sides = window_sides(config.data, tiles.refs, *tiles.images.shape[1:3])
    if note := sampling_note(config.data, sides):
        logger.info(note)
    for height, width in (tiles.images.shape[1:3], *((side, side) for side in sides)):
        require_size(config.model.name, config.model.options, height, width)
    prepared = _Prepared(config, tiles, splits, folds, fingerprint(tiles, resolved.data), known, refit)
    if known is not None:  # its errors should come before the network is built
        run = Run.create(resolved.path, config, splits, prepared.facts, request.resume)
        for fold in folds:
            if not request.overwrite and (request.fold != ALL or not run.fold(fold).finished):
                require_fresh(_trained_as(run, refit), fold, request.resume)
    return prepared


def _folds(wanted: str, splits: Splits) -> list[Fold]:
    folds: list[Fold] = list(range(splits.folds)) if wanted == ALL else [FULL if wanted == FULL else int(wanted)]
    for fold in folds:
        splits.require_fold(fold)
    return folds


def _check_network(resolved: _Resolved, prepared: _Prepared) -> None:
    """Raise errors that only the backend can find: in network, pretrained weights, labels or devices."""
    request, config, tiles = resolved.request, prepared.config, prepared.tiles
    import_backend()
    # These modules define subclasses of Keras classes, so they import Keras.
    from marsls_keras.training.multi_device import uneven_shares
    from marsls_keras.training.train_fold import require_labels

    bands = expand_bands(config.data.bands, tiles.bands)
    with stage("Building the network"):
        model = build_model(config.model.name, bands, **config.model.options)
    checkpoint = pretrained_source(config.model.name, config.model.options, config.model.pretrained)
    if checkpoint and not request.resume:  # a resumed fold does not read it again
        load_pretrained(model, checkpoint, encoder_groups(config.model.name, bands, config.model.options))
    for fold in prepared.folds:
        held_out = prepared.splits.held_out(fold)
        require_labels(config, fold, tiles.masks[[ref.id not in held_out for ref in tiles.refs]])
    if trouble := uneven_shares(config, tiles, config.training.batch_size, request.devices):
        raise InputError(trouble)
    if not request.environments:  # else the training processes, which have the devices, check this
        require_devices(config.training, request.devices, is_depthwise(config.model.name, config.model.options))


def _run(resolved: _Resolved, prepared: _Prepared) -> tuple[Run, list[dict[str, Any]]]:
    """Create or continue the run, train its folds, and draw their curves."""
    from marsls_keras.training.train_fold import train_fold

    request, tiles, refit = resolved.request, prepared.tiles, prepared.refit
    run = Run.create(resolved.path, prepared.config, prepared.splits, prepared.facts, request.resume)
    if prepared.known is None:
        note_recipe(run, resolved.source, resolved.settings)
    labels = None
    if refit is not None:
        if not request.overwrite:  # before images are predicted
            require_fresh(as_refit(run, refit), FULL, request.resume)
        refit, labels = pseudo_labelled(run, refit, tiles, request.pseudo, request.confidence, request.resume)
    folds = _begin(request, run, prepared.folds, refit)
    if request.environments and folds:
        common = ["train", "--run", run.name, "--runs", str(request.runs), "--data", str(resolved.data)]
        common += ["--epochs", str(prepared.config.training.epochs), *(["--resume"] if request.resume else [])]
        train_side_by_side({int(fold): [*common, "--fold", str(fold)] for fold in folds}, request.environments)
        return run, [run.metrics(fold) for fold in folds]
    metrics = []
    for fold in folds:
        metrics.append(train_fold(run, fold, tiles, request.resume, request.devices, request.callbacks, refit, labels))
        _draw(run, fold)
    return run, metrics


def _begin(request: TrainRequest, run: Run, folds: Sequence[Fold], refit: RefitPlan | None) -> list[Fold]:
    """Return the folds that are to be trained, and draw missing curves of those that are finished already."""
    left: list[Fold] = []
    for fold in folds:
        if request.overwrite:
            discard(run, fold)
        elif request.fold == ALL and run.fold(fold).finished:
            logger.info(f"Fold {fold} of run {run.name} is finished already.")
            if not (run.fold_path(fold) / _CURVES).exists():  # missing if the disk was full
                _draw(run, fold)
            continue
        require_fresh(_trained_as(run, refit), fold, request.resume)
        left.append(fold)
    return left


_CURVES = "curves.png"


def _draw(run: Run, fold: Fold) -> None:
    from marsls_keras.report import save_curves  # with Matplotlib

    folder = run.fold_path(fold)
    save_curves(folder / _CURVES, read_history(folder / "history.csv"), f"{run.name}, fold {fold}")


def _trained_as(run: Run, refit: RefitPlan | None) -> Run:
    return run if refit is None else as_refit(run, refit)
