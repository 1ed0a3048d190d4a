"""The command `marsls check`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from competition.cli.options import AUTO, AsJson, Conflicts, Release


def check(
    data: Annotated[Path, Argument(envvar="MARSLS_DATA", help="Data folder.")] = Path("data"),
    release: Release = AUTO,
    resize: Annotated[
        int | None, Option(min=16, help="Bring tiles that differ in size to this one, as data.resize does.")
    ] = None,
    images: Annotated[
        Path | None, Option(help="Also compare this folder of images, such as those to be predicted.")
    ] = None,
    conflicts: Annotated[
        Conflicts, Option(help="Copies of a tile whose masks differ, as data.conflicts.")
    ] = Conflicts.error,
    plot: Annotated[Path | None, Option(help="Draw the bands' distributions to this .png or .svg.")] = None,
    as_json: AsJson = False,
) -> None:
    """Describe a data folder and list its problems; exit code 2 if anything must be fixed.

    Example:
        ```sh
        marsls check data --images phase2 --json
        ```
    """
    from competition.commands.check import check_data
    from competition.console import show_check, show_json

    result = check_data(data, release.value, resize, images, plot, conflicts.value)
    show_json(result) if as_json else show_check(result)
    if any(problem["severity"] == "error" for problem in result["problems"]):
        raise typer.Exit(2)
