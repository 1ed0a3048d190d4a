"""The command `marsls check`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from competition.cli.options import AUTO, AsJson, Conflicts, Release, data_option, next_line


def check(
    data: Annotated[Path, Argument(envvar="MARSLS_DATA", help="Data folder.")] = Path("data"),
    release: Release = AUTO,
    resize: Annotated[
        int | None, Option(min=16, help="Resample tiles to this size in pixels, as data.resize does.")
    ] = None,
    images: Annotated[
        Path | None, Option(help="Also compare with this folder of images, such as those to predict.")
    ] = None,
    conflicts: Annotated[
        Conflicts, Option(help="What happens to copies of a tile whose masks differ, as data.conflicts does.")
    ] = Conflicts.error,
    plot: Annotated[Path | None, Option(help="Draw the distributions of the bands to this .png or .svg file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Describe a data folder and list its problems; exit code 2 if anything must be fixed.

    Example:
        ```sh
        marsls check data --images phase2 --json
        ```
    """
    from competition.commands.check import check_data
    from competition.console import show, show_check, show_json

    result = check_data(data, release.value, resize, images, plot, conflicts.value)
    show_json(result) if as_json else show_check(result)
    if any(problem["severity"] == "error" for problem in result["problems"]):
        raise typer.Exit(2)
    if not as_json:
        keys = {
            "release": None if release is AUTO else release.value,
            "resize": resize,
            "conflicts": None if conflicts is Conflicts.error else conflicts.value,
        }
        changed = [("--set", f"data.{key}={value}") for key, value in keys.items() if value is not None]
        show(next_line("train", data_option(data), *changed))
