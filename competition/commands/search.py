"""Search over training settings: plan the study, run its worker, and return what was found."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from competition.processes import worker_environments
from marsls_keras.errors import RunError

logger = logging.getLogger(__name__)

TRIALS = 40
"""Trials of a study if --trials is not given."""


@dataclass(frozen=True)
class SearchRequest:
    """Arguments of `marsls search`.

    Attributes:
        config: Name of a recipe, or a YAML file.
        settings: Changes of it, "section.key=value".
        run: Name of the run; that of the recipe by default.
        folds: Folds that a trial trains; fold 0 by default.
        data: Data folder; $MARSLS_DATA or data by default.
        runs: Folder of the runs.
        epochs: Epochs of a trial; those of the recipe by default.
        trials: Trials in all.
        jobs: Trials at once.
        storage: Journal file or URL; the journal in the search's folder by default.
        pruner: Name of the pruner.

    Example:
        >>> SearchRequest("unet", epochs=20).trials
        40
    """

    config: str = "default"
    settings: tuple[str, ...] = ()
    run: str | None = None
    folds: tuple[int, ...] = (0,)
    data: Path | None = None
    runs: Path = Path("runs")
    epochs: int | None = None
    trials: int = TRIALS
    jobs: int = 1
    storage: str | None = None
    pruner: str = "median"


@dataclass(frozen=True)
class SearchResult:
    """What a search has found so far.

    Attributes:
        record: Content of study.json: the trials, the importance of the settings.
        stopped: Number of the signal that stopped the worker; None if it ended by itself.
        train: Options of the `marsls train` that trains the best trial's recipe; [] if no trial is finished.

    Example:
        >>> SearchResult({"trials": []}, stopped=None, train=[]).stopped is None
        True
    """

    record: dict[str, Any]
    stopped: int | None
    train: list[tuple[str, object]]


def search(request: SearchRequest) -> SearchResult:
    """Run a search over training settings until all its trials are done, or a signal stops it.

    Raises:
        InputError: If the recipe, the data or the storage cannot be used.
        RunError: If no trial was finished, or a file cannot be written.

    Example:
        >>> search(SearchRequest("unet", epochs=20)).record["trials"]  # doctest: +SKIP
    """
    environments = worker_environments(request.jobs, work="trial")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # this process trains nothing, and must leave the GPUs to those that do
    import optuna

    from competition.search.space import Space
    from competition.search.storage import open_storage
    from competition.search.study import StudyPlan, StudyWorker, best_trial
    from competition.search.study_record import StudyRecord
    from marsls_keras.config import load_recipe
    from marsls_keras.data.fingerprint import fingerprint
    from marsls_keras.data.load_folder import load_folder
    from marsls_keras.data.splits import make_splits, require_held_out
    from marsls_keras.json_records import read_record
    from marsls_keras.runs.names import require_plain

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    epochs = [] if request.epochs is None else [f"training.epochs={request.epochs}"]
    name, recipe = load_recipe(request.config, [*request.settings, *epochs])
    name = name if request.run is None else request.run
    require_plain(name)
    space = Space.of(recipe)
    root = request.data or Path(os.environ.get("MARSLS_DATA", "data"))
    tiles = load_folder(root, recipe.data)
    splits = make_splits(tiles, recipe.data, recipe.training.seed)
    require_held_out(list(request.folds))
    chosen = sorted(set(request.folds))
    for fold in chosen:
        splits.require_fold(fold)
    sha256 = fingerprint(tiles, root)["sha256"]
    del tiles  # each trial reads them itself
    folder = request.runs / name / "search"
    storage = request.storage or str(folder / "journal.log")
    plan = StudyPlan(folder, name, space, root, sha256, chosen, request.trials, request.pruner, storage)
    worker = StudyWorker(plan, open_storage(storage), environments)
    logger.info(
        f"Searching {', '.join(space.keys)}: {plan.trials} trials of {recipe.training.epochs} epochs, "
        f"pruner {plan.pruner}, in {folder}."
    )
    best = best_trial(worker.run())
    record = read_record(folder / "study.json", StudyRecord)
    if worker.stopped is None and best is None:
        if not any(trial["state"] == "running" for trial in record["trials"]):
            raise RunError(f"No trial was finished: {_last_reason(record)} See the logs in {folder}/trial_*.")
        logger.info("No trial is finished yet; other workers train the last ones.")
    planned = load_recipe(request.config, list(request.settings))[1].training.epochs
    train: list[tuple[str, object]] = [
        ("--config", folder / "best.yaml"),
        ("--run", f"{name}_best" if (request.runs / name / "splits.json").exists() else name),
        ("--epochs", None if planned == recipe.training.epochs else planned),
        ("--data", None if root == Path("data") else root),
        ("--runs", request.runs),
    ]
    return SearchResult(record, worker.stopped, [] if best is None else train)


def _last_reason(record: dict[str, Any]) -> str:
    reasons = [trial["reason"] for trial in record["trials"] if trial["reason"]]
    return f"the last one failed: {reasons[-1].rstrip('.')}." if reasons else "all were stopped early."
