"""The command `marsls tune training`: from its arguments to a search, and what it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml

from competition.console import say, show, show_json, table
from competition.search import Plan, Search, best_trial
from competition.search_space import Space
from competition.storage import open_store
from marsls_keras.config import load_recipe
from marsls_keras.data.derive import load_folder
from marsls_keras.data.fingerprint import fingerprint
from marsls_keras.data.folds import make_splits
from marsls_keras.errors import InputError, RunError
from marsls_keras.files import read_json

_SHOWN = 10


@dataclass(frozen=True)
class SearchOptions:
    """What the user asks for; None is the default.

    Attributes:
        config: Name of a recipe, or a YAML file.
        settings: Changes of it.
        epochs: Epochs of a trial; those of the recipe by default.
        trials: Trials in all.
        storage: Journal file or URL; the journal in the search's folder by default.
        pruner: Name of the pruner.
    """

    config: str | None
    settings: list[str] | None
    epochs: int | None
    trials: int | None
    storage: str | None
    pruner: str | None


def search_training(
    options: SearchOptions,
    run: str | None,
    folds: list[int] | None,
    data: Path,
    runs: Path,
    environments: Sequence[Mapping[str, str]],
    as_json: bool,
) -> tuple[int, list[tuple[str, object]]]:
    """Search, and show the trials; return the exit code and the options of the command that trains the best one.

    Raises:
        InputError: If the recipe, the data or the storage cannot be used.
        RunError: If no trial was finished, or a file cannot be written.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    epochs = [f"training.epochs={options.epochs}"] if options.epochs is not None else []
    name, recipe = load_recipe(options.config or "default", [*(options.settings or []), *epochs])
    planned = load_recipe(options.config or "default", options.settings)[1].training.epochs
    name = run or name
    if not name.strip(". ") or any(sign in name for sign in "/\\+"):
        raise InputError(f"--run {name}: expected a plain name, without slashes and without +.")
    space = Space.of(recipe)
    tiles = load_folder(data, recipe.data)
    splits = make_splits(tiles, recipe.data, recipe.training.seed)
    chosen = sorted(set([0] if folds is None else folds))
    for fold in chosen:
        splits.require_fold(fold)
    sha256 = fingerprint(tiles, data)["sha256"]
    del tiles  # the trials read them themselves
    folder = runs / name / "search"
    storage = options.storage or str(folder / "journal.log")
    pruner = options.pruner or "median"
    plan = Plan(folder, name, space, data, sha256, chosen, options.trials or 40, pruner, storage)
    search = Search(plan, open_store(storage, say), environments, say)
    say(f"Searching {', '.join(space.keys)}: {plan.trials} trials of {recipe.training.epochs} epochs, pruner {pruner}, in {folder}.")
    study = search.run()
    result = read_json(folder / "study.json")
    show_json(result) if as_json else _show(result)
    best = best_trial(study)
    if search.stopped is not None:
        say("Stopped. The same command goes on.")
        return 128 + search.stopped, []
    if best is None:
        left = sum(trial["state"] == "running" for trial in result["trials"])
        if left:
            say(f"{left} trials run elsewhere; none is finished yet.")
            return 0, []
        raise RunError(f"No trial was finished: {_last_reason(result)} See the logs in {folder}/trial_*.")
    own_name = name if not (runs / name / "splits.json").exists() else f"{name}_best"
    return 0, [
        ("--config", folder / "best.yaml"),
        ("--run", own_name),
        ("--epochs", planned if planned != recipe.training.epochs else None),
        ("--data", None if data == Path("data") else data),
        ("--runs", runs),
    ]


def _show(result: dict[str, Any]) -> None:
    trials = result["trials"]
    states = {state: sum(trial["state"] == state for trial in trials) for state in ("complete", "pruned", "fail", "running")}
    counted = ", ".join(f"{number} {state}" for state, number in states.items() if number)
    best = sorted((trial for trial in trials if trial["miou"] is not None), key=lambda trial: -trial["miou"])[:_SHOWN]
    rows = [[f"trial {t['number']}", t["miou"], t["epochs"], t["seconds"] or "", _one_line(t["parameters"])] for t in best]
    show(table(f"{result['name']}: {len(trials)} trials ({counted})", ["", "mIoU", "epochs", "seconds", "parameters"], rows))
    for trial in trials:
        if trial["reason"]:
            show(f"trial {trial['number']} failed: {trial['reason'].splitlines()[0]}")
    if result["importance"]:
        show("Importance: " + ", ".join(f"{key} {share:.0%}" for key, share in result["importance"].items()) + ".")


def _one_line(parameters: dict[str, Any]) -> str:
    rounded = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in parameters.items()}
    return yaml.safe_dump(rounded, default_flow_style=True, sort_keys=False, width=10**6).strip().strip("{}")


def _last_reason(result: dict[str, Any]) -> str:
    reasons = [trial["reason"] for trial in result["trials"] if trial["reason"]]
    return f"the last failed with {reasons[-1]}" if reasons else "all were stopped."
