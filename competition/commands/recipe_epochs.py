"""Store the recipe's number of epochs in runs that were started with another number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marsls_keras.config import load_config
from marsls_keras.data.splits import Fold
from marsls_keras.errors import InputError
from marsls_keras.files import write_json
from marsls_keras.json_records import read_record
from marsls_keras.runs.records import RecipeRecord
from marsls_keras.runs.run import Run


def sets_epochs(settings: Sequence[str]) -> bool:
    """Return whether settings of the command line contain the number of epochs.

    Example:
        >>> sets_epochs(["training.epochs=3"])
        True
    """
    return any(setting.split("=")[0].strip() == "training.epochs" for setting in settings)


def note_recipe(run: Run, source: str, settings: Sequence[str]) -> None:
    """Write recipe.json into a run whose settings change the recipe's number of epochs.

    Args:
        run: The run, which was just begun.
        source: Name or file of its recipe.
        settings: Changes of the form "section.key=value".

    Example:
        >>> note_recipe(run, "default", ["training.epochs=1"])  # doctest: +SKIP
    """
    if not sets_epochs(settings):
        return
    usual = load_config(source, [setting for setting in settings if not sets_epochs([setting])])[1].training
    if usual.epochs != run.config.training.epochs:
        write_json(run.path / "recipe.json", {"recipe": source, "epochs": usual.epochs})


def recipe_of_trial(run: Run) -> dict[str, Any] | None:
    """Return the recipe of a run and its number of epochs, if the run was begun with another number; else None.

    Raises:
        InputError: If recipe.json is damaged.

    Example:
        >>> recipe_of_trial(Run.open("runs/default"))  # doctest: +SKIP
        {'recipe': 'default', 'epochs': 73}
    """
    path = run.path / "recipe.json"
    usual = read_record(path, RecipeRecord) if path.exists() else None
    return None if usual is None or usual["epochs"] == run.config.training.epochs else usual


def require_recipe_epochs(run: Run, folds: Sequence[Fold]) -> None:
    """Raise an error if folds would be trained with a number of epochs that differs from the recipe's.

    A run that was begun with few epochs, to try it, should not silently train all folds with as few.

    Raises:
        InputError: If a fold is to be trained and the run was begun with another number than its recipe's.

    Example:
        >>> require_recipe_epochs(Run.open("runs/default"), [1])  # doctest: +SKIP
    """
    usual, epochs, runs = recipe_of_trial(run), run.config.training.epochs, run.path.parent
    if usual is None or all(run.fold(fold).finished for fold in folds):
        return
    chosen = "" if len(folds) > 1 else f" --fold {folds[0]}"
    elsewhere = "" if runs == Path("runs") else f" --runs {runs}"
    common = f"marsls train --run {run.name}{elsewhere}"
    longer = ""
    if usual["epochs"] > epochs:
        longer = (
            "\nTo train with the recipe's, with what is finished going on: "
            f"{common}{chosen} --resume --epochs {usual['epochs']}"
        )
    raise InputError(
        f"Run {run.name} was begun with {epochs} epochs; its recipe {usual['recipe']} has {usual['epochs']}.\n"
        f"To go on with {epochs}: {common}{chosen} --epochs {epochs}{longer}\n"
        "To begin anew with the recipe: "
        f"marsls train --config {usual['recipe']} --run {run.name}-{usual['epochs']}{elsewhere}"
    )
