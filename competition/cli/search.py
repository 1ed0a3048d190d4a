"""The command `marsls search`: parse the arguments, call the function, print its result."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from competition.cli.options import AsJson, Runs, Settings, next_line, parse_folds, recipe_names
from marsls_keras.errors import InputError

logger = logging.getLogger(__name__)

_SHOWN = 10
_Pruner = StrEnum("_Pruner", ["none", "median", "asha", "hyperband"])
_MEDIAN = _Pruner("median")


def search(
    config: Annotated[
        str, Option(metavar="RECIPE", help="Name of a recipe, or a YAML file.", autocompletion=recipe_names)
    ] = "default",
    run: Annotated[
        list[str] | None, Option("--run", metavar="NAME", help="Name of the run; by default that of the recipe.")
    ] = None,
    folds: Annotated[
        str | None, Option("--folds", "--fold", metavar="K,K", help="Folds that each trial trains; 0 by default.")
    ] = None,
    data: Annotated[Path | None, Option(envvar="MARSLS_DATA", help="Data folder; data by default.")] = None,
    settings: Settings = None,
    epochs: Annotated[int | None, Option(help="Epochs of each trial; by default those of the recipe.")] = None,
    trials: Annotated[int, Option(min=1, help="Number of trials of the whole study, failed ones included.")] = 40,
    jobs: Annotated[
        int, Option(min=1, help="Trials that run at the same time, each on its own GPU, or sharing the CPU cores.")
    ] = 1,
    storage: Annotated[
        str | None, Option(help="Journal file, or URL of a database that several machines share.")
    ] = None,
    pruner: Annotated[_Pruner, Option(help="How unpromising trials are stopped early.")] = _MEDIAN,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Search for better training settings: loss, learning rate, weight decay, augmentation.

    Writes the best recipe found to runs/<run>/search/best.yaml. The same command continues a stopped search.
    `marsls tune training` is the same command.

    Example:
        ```sh
        marsls search --config unet --epochs 20 --trials 40
        ```
    """
    from competition.commands.search import SearchRequest
    from competition.commands.search import search as run_search
    from competition.console import show, show_json

    if run and len(run) > 1:
        raise InputError(f"--run {run[1]}: a search belongs to one run, but {len(run)} are given.")
    chosen = parse_folds(folds)
    request = SearchRequest(
        config,
        tuple(settings or ()),
        run[0] if run else None,
        (0,) if chosen is None else tuple(chosen),
        data,
        runs,
        epochs,
        trials,
        jobs,
        storage,
        pruner.value,
    )
    found = run_search(request)
    show_json(found.record) if as_json else _show(found.record)
    if found.stopped is not None:
        logger.info("Stopped. The same command goes on.")
        raise typer.Exit(128 + found.stopped)
    if found.train and not as_json:
        show(next_line("train", *found.train))


def _show(result: dict[str, Any]) -> None:
    from competition.console import show, table
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
    show("mIoU is that of the held-out tiles at the best epoch. It favours the best trial, which was chosen by it.")
