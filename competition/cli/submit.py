"""The command `marsls submit`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from competition.cli.options import AUTO, AsJson, Folds, Release, RunNames, Runs, next_line, parse_folds

CODABENCH = "https://www.codabench.org/competitions/12305/"
"""Page of the Mars-LS challenge."""


def submit(
    context: typer.Context,
    run: RunNames = None,
    images: Annotated[
        Path | None, Option(help="Folder of the images to predict; by default test/images of the run's data.")
    ] = None,
    out: Annotated[Path | None, Option(help="Zip file to write; by default submissions/<run>.zip.")] = None,
    folds: Folds = None,
    release: Release = AUTO,
    verify: Annotated[
        Path | None, Option(metavar="ZIP", help="Only check this zip, also one made elsewhere, against --images.")
    ] = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Predict the test images and write a verified zip for CodaBench, or verify an existing zip.

    All folds and views predict each image.

    Example:
        ```sh
        marsls submit --run unet --run segmenter
        marsls submit --verify theirs.zip --images data/test/images
        ```
    """
    if verify is not None:
        from competition.console import show, show_inspection, show_json
        from competition.submission.inspect import expected_masks, inspect_zip, refuse_other_options

        refuse_other_options(
            {name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE")}
        )
        inspected = inspect_zip(verify, expected_masks(images, run or [], runs, release.value))
        show_json(inspected) if as_json else show_inspection(inspected)
        if inspected["good"] and not as_json:
            show(*_upload(verify))
        raise typer.Exit(0 if inspected["good"] else 2)
    from competition.commands.submit import SubmitRequest
    from competition.commands.submit import submit as write_zip
    from competition.console import bounds, show, show_json

    manifest = write_zip(SubmitRequest(run or ["default"], images, out, runs, parse_folds(folds), release.value))
    if as_json:
        show_json(manifest)
        return
    show(f"{manifest['path']}: {manifest['tiles']} masks, {manifest['foreground_ratio']:.1%} landslide, verified.")
    if expected := manifest["expected"]:
        show(f"Expected mIoU on tiles like those of training: {expected['miou']:.4f} ({bounds(expected['interval'])}).")
    show(*_upload(Path(manifest["path"])))


def _upload(path: Path) -> list[str]:
    """Return the lines that say how a zip is submitted, and how the answer is recorded."""
    add = next_line("ledger", "add", str(path), ("--phase", "PHASE"), ("--score", "SCORE"))
    return [
        f"Upload {path} at {CODABENCH}, under My Submissions.",
        f"{add}   # PHASE is 1 or 2, SCORE the mIoU on the leaderboard",
    ]
