"""The command `marsls tune training`: start a search from its arguments and print the result."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from competition.cli.options import next_line
from competition.console import show, show_json, table
from competition.processes import worker_environments
from marsls_keras.errors import InputError, RunError

logger = logging.getLogger(__name__)

_TRIALS = 40
_PRUNER = "median"
_SHOWN = 10


@dataclass(frozen=True)
class SearchOptions:
    """Command-line options of a search; None stands for the default.

    Attributes:
        config: Name of a recipe, or a YAML file.
        set: Changes of it.
        epochs: Epochs of a trial; those of the recipe by default.
        trials: Trials in all.
        jobs: Trials at once.
        storage: Journal file or URL; the journal in the search's folder by default.
        pruner: Name of the pruner.

    Example:
        >>> SearchOptions(config="unet", set=None, epochs=20, trials=40, jobs=1, storage=None, pruner="median").epochs
        20
    """

    config: str | None
    set: list[str] | None
    epochs: int | None
    trials: int | None
    jobs: int | None
    storage: str | None
    pruner: str | None

    def refuse(self) -> None:
        """Raise an error if any option of a search is given, for commands that do not search.

        Raises:
            InputError: If some are.
        """
        if given := [f"--{field.name}" for field in fields(self) if getattr(self, field.name) is not None]:
            raise InputError(f"{given[0]} belongs to the search over training: marsls tune training {given[0]} …")


def tune_training(
    options: SearchOptions,
    names: list[str],
    folds: list[int] | None,
    data: Path | None,
    runs: Path,
    as_json: bool,
) -> int:
    """Run a search over training settings, print the trials and the next command, and return the exit code.

    Args:
        options: What to search.
        names: Name of the run; that of the recipe if there is none.
        folds: Folds that a trial trains; fold 0 by default.
        data: Data folder; $MARSLS_DATA or data by default.
        runs: Folder of the runs.
        as_json: Show JSON instead.

    Raises:
        InputError: If the recipe, the data or the storage cannot be used.
        RunError: If no trial was finished, or a file cannot be written.

    Example:
        >>> options = SearchOptions("unet", None, epochs=20, trials=40, jobs=1, storage=None, pruner=None)
        >>> tune_training(options, [], None, Path("data"), Path("runs"), as_json=False)  # doctest: +SKIP
        0
    """
    if len(names) > 1:
        raise InputError(f"--run {names[1]}: a search belongs to one run, but {len(names)} are given.")
    environments = worker_environments(options.jobs or 1)
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
    epochs = [] if options.epochs is None else [f"training.epochs={options.epochs}"]
    name, recipe = load_recipe(options.config or "default", [*(options.set or []), *epochs])
    name = names[0] if names else name
    require_plain(name)
    space = Space.of(recipe)
    root = data or Path(os.environ.get("MARSLS_DATA", "data"))
    tiles = load_folder(root, recipe.data)
    splits = make_splits(tiles, recipe.data, recipe.training.seed)
    require_held_out(folds)
    chosen = sorted(set([0] if folds is None else folds))
    for fold in chosen:
        splits.require_fold(fold)
    sha256 = fingerprint(tiles, root)["sha256"]
    del tiles  # each trial reads them itself
    folder = runs / name / "search"
    storage = options.storage or str(folder / "journal.log")
    plan = StudyPlan(
        folder, name, space, root, sha256, chosen, options.trials or _TRIALS, options.pruner or _PRUNER, storage
    )
    worker = StudyWorker(plan, open_storage(storage), environments)
    logger.info(
        f"Searching {', '.join(space.keys)}: {plan.trials} trials of {recipe.training.epochs} epochs, "
        f"pruner {plan.pruner}, in {folder}."
    )
    best = best_trial(worker.run())
    result = read_record(folder / "study.json", StudyRecord)
    show_json(result) if as_json else _show(result)
    if worker.stopped is not None:
        logger.info("Stopped. The same command goes on.")
        return 128 + worker.stopped
    if best is None and any(trial["state"] == "running" for trial in result["trials"]):
        logger.info("No trial is finished yet; other workers train the last ones.")
    elif best is None:
        raise RunError(f"No trial was finished: {_last_reason(result)} See the logs in {folder}/trial_*.")
    elif not as_json:
        planned = load_recipe(options.config or "default", options.set)[1].training.epochs
        options_of_train = [
            ("--config", folder / "best.yaml"),
            ("--run", f"{name}_best" if (runs / name / "splits.json").exists() else name),
            ("--epochs", None if planned == recipe.training.epochs else planned),
            ("--data", None if root == Path("data") else root),
            ("--runs", runs),
        ]
        show(next_line("train", *options_of_train))
    return 0


def _show(result: dict[str, Any]) -> None:
    from competition.search.study import in_words

    trials = result["trials"]
    states = {
        state: sum(trial["state"] == state for trial in trials) for state in ("complete", "pruned", "fail", "running")
    }
    counted = ", ".join(f"{number} {state}" for state, number in states.items() if number)
    best = sorted((trial for trial in trials if trial["miou"] is not None), key=lambda trial: -trial["miou"])[:_SHOWN]
    rows = [
        [f"trial {t['number']}", t["miou"], t["epochs"], t["seconds"] or "", in_words(t["parameters"])] for t in best
    ]
    show(
        table(
            f"{result['name']}: {len(trials)} trials ({counted})", ["", "mIoU", "epochs", "seconds", "parameters"], rows
        )
    )
    for trial in trials:
        if trial["reason"]:
            show(f"trial {trial['number']} failed: {trial['reason'].splitlines()[0]}")
    if result["importance"]:
        show("Importance: " + ", ".join(f"{key} {share:.0%}" for key, share in result["importance"].items()) + ".")


def _last_reason(result: dict[str, Any]) -> str:
    reasons = [trial["reason"] for trial in result["trials"] if trial["reason"]]
    return f"the last one failed: {reasons[-1].rstrip('.')}." if reasons else "all were stopped early."
