"""The command `marsls tune`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from competition.cli.options import AsJson, RunNames, Runs, next_line, parse_folds
from marsls_keras.errors import InputError
from marsls_keras.inference.purpose import Purpose


class _What(StrEnum):
    decision = "decision"
    training = "training"


_Pruner = StrEnum("_Pruner", ["none", "median", "asha", "hyperband"])


def tune(
    what: Annotated[
        _What, Argument(help="decision: how predictions become masks. training: its settings.")
    ] = _What.decision,
    run: RunNames = None,
    folds: Annotated[
        str | None, Option("--folds", "--fold", help="Only these folds, such as 0,1; training: 0 by default.")
    ] = None,
    data: Annotated[
        Path | None, Option("--data", help="Data folder of training; else where the run's data are now.")
    ] = None,
    views: Annotated[
        list[str] | None, Option(help="decision: candidate set of views, such as d4 or d4@256; repeatable.")
    ] = None,
    purpose: Annotated[
        Purpose | None, Option("--for", help="decision: a new region (default), or tiles among labelled ones.")
    ] = None,
    runs: Runs = Path("runs"),
    config: Annotated[
        str | None, Option(help="training: name of a recipe, or a YAML file; default by default.")
    ] = None,
    settings: Annotated[list[str] | None, Option("--set", help="training: section.key=value; repeatable.")] = None,
    epochs: Annotated[int | None, Option(help="training: epochs of a trial; the recipe's by default.")] = None,
    trials: Annotated[
        int | None, Option(min=1, help="Weights that are tried, 200; training: trials of the study, 40.")
    ] = None,
    jobs: Annotated[
        int | None, Option(min=1, help="training: trials at once, each on a GPU of its own, or sharing the cores.")
    ] = None,
    storage: Annotated[
        str | None, Option(help="training: journal file, or URL of a database that several machines share.")
    ] = None,
    pruner: Annotated[
        _Pruner | None, Option(help="training: what stops hopeless trials early; median by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose threshold, views, weights and post-processing on out-of-fold predictions; or search over training.

    Example:
        ```sh
        marsls tune --run unet
        marsls tune training --config unet --epochs 20 --trials 40
        ```
    """
    from competition.cli.search import SearchOptions, tune_training

    options = SearchOptions(
        config, settings, epochs, trials if what is _What.training else None, jobs, storage, pruner and pruner.value
    )
    if what is _What.training:
        for flag, given in (("--views", views), ("--for", purpose)):
            if given:
                raise InputError(f"{flag} is for marsls tune decision.")
        raise typer.Exit(tune_training(options, run or [], parse_folds(folds), data, runs, as_json))
    options.refuse()
    from competition.commands import tune
    from competition.console import elements_table, regions_line, score_table, show, show_json, signed
    from competition.submission.suitable import for_challenge
    from competition.submission.write import images_there
    from marsls_keras.counts import NO_INTERVAL
    from marsls_keras.inference.decision_record import Figures
    from marsls_keras.runs.run import Run

    names = run or ["default"]
    aim = purpose or Purpose.REGION
    decision, path = tune.tune(names, runs, parse_folds(folds), data, trials or 200, views or [], aim)
    if as_json:
        show_json(decision.to_json())
        return
    assert (tuning := decision.tuning) and tuning.baseline and tuning.tuned and tuning.expected, (
        "tune measures all of these"
    )
    rows: list[tuple[str, Figures]] = [(f"threshold 0.5, views {tuning.baseline.views}", tuning.baseline)]
    rows += [("tuned, nested across folds", tuning.nested)] if tuning.nested else []
    rows += [("tuned, on the same tiles", tuning.tuned)]
    title = f"{'+'.join(names)}: {len(tuning.folds)} fold(s), out-of-fold, for {tuning.purpose.words}"
    show(score_table(title, [(label, figures.scores.model_dump(), figures.interval) for label, figures in rows]))
    if tuning.baseline.interval is None:
        show(f"{NO_INTERVAL.capitalize()}. Nothing tells how far a figure might move, so no element can be kept.")
    if "regions" in tuning.expected.model_fields_set:
        show(regions_line(tuning.expected.regions))
    show(
        elements_table(
            "Elements of the decision, nested" + ("" if tuning.nested else " across halves of the fold"),
            tuning.elements,
        )
    )
    show("An element is kept if its whole interval is above 0.")
    if any(row.kept for row in tuning.elements):
        show(tuning.bias)
    if gain := tuning.gain:
        ends = NO_INTERVAL if gain.interval is None else f"95 % interval {' to '.join(map(signed, gain.interval))}"
        show(f"Gain of tuning: {signed(gain.miou)} mIoU ({ends}).")
        show(
            "Quote the nested figure."
            if gain.credible
            else "The interval is not above 0, so the plain decision is kept."
        )
    else:
        show("There is one fold only, so the tuned figure is optimistic; quote that of threshold 0.5.")
    show(f"Decision: {decision.describe()} → {path}")
    if for_challenge(Run.open(runs / names[0])):
        images = None if images_there(Run.open(runs / names[0])) else "DIR"
        show(
            next_line(
                "submit",
                *(("--run", name) for name in run or []),
                ("--folds", folds),
                ("--images", images),
                ("--runs", runs),
            )
        )
