"""The command `marsls bench`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from competition.cli.options import AsJson, Settings, data_option, next_line, recipe_names


def bench(
    config: Annotated[
        str, Option(metavar="RECIPE", help="Name of a recipe, or a YAML file.", autocompletion=recipe_names)
    ] = "default",
    data: Annotated[
        Path | None, Option(envvar="MARSLS_DATA", help="Data folder; by default synthetic tiles are generated.")
    ] = None,
    settings: Settings = None,
    seconds: Annotated[float, Option(help="Seconds that each measurement takes.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Measure decoding, the data pipeline, training and inference on this machine.

    Example:
        ```sh
        marsls bench --config unet --seconds 8
        ```
    """
    from competition.bench import bench as measure
    from competition.console import show, show_json

    result = measure.bench(config, settings or [], data, seconds)
    if as_json:
        show_json(result)
        return
    show(*measure.tables(result))
    changed = [("--set", setting) for setting in settings or []]
    chosen = ("--config", None if config == "default" else config)
    show(next_line("train", chosen, data_option(data) if data else ("--data", None), *changed))
