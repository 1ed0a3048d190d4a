"""The command `marsls tune`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from competition.cli.column_notes import notes
from competition.cli.options import AsJson, OwnData, RunNames, Runs, next_line, parse_folds
from marsls_keras.inference.purpose import Purpose


def tune(
    run: RunNames = None,
    folds: Annotated[
        str | None, Option("--folds", "--fold", metavar="K,K", help="Use only these folds, such as 0,1.")
    ] = None,
    data: OwnData = None,
    views: Annotated[
        list[str] | None,
        Option(
            metavar="SET", help="Candidate set of views (test-time augmentation), such as d4 or d4@256; repeatable."
        ),
    ] = None,
    purpose: Annotated[
        Purpose,
        Option("--for", help="Where the images to predict lie: in a new region, or among published, labelled tiles."),
    ] = Purpose.REGION,
    trials: Annotated[int, Option(min=1, help="Number of weightings of the runs that are tried.")] = 200,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Choose threshold, views, weights of the runs and post-processing from out-of-fold predictions.

    `marsls search` tunes the training.

    Example:
        ```sh
        marsls tune --run unet
        ```
    """
    from competition.commands import tune
    from competition.console import elements_table, regions_line, score_table, show, show_json, signed
    from competition.submission.suitable import for_challenge
    from competition.submission.write import images_there
    from marsls_keras.counts import NO_INTERVAL
    from marsls_keras.inference.decision_record import Figures
    from marsls_keras.runs.run import Run

    names = run or ["default"]
    decision, path = tune.tune(names, runs, parse_folds(folds), data, trials, views or [], purpose)
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
    show("An element is kept if its whole interval is above 0, and so is that of all elements together.")
    show(notes("miou", "oof", "views", "nested", "alone"))
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
