"""The command `marsls bench`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from competition.cli.options import AsJson


def bench(
    config: Annotated[str, Option(help="Name of a recipe, or a YAML file.")] = "default",
    data: Annotated[Path | None, Option(envvar="MARSLS_DATA", help="Data folder; generated tiles by default.")] = None,
    settings: Annotated[list[str] | None, Option("--set", help="section.key=value; repeatable.")] = None,
    seconds: Annotated[float, Option(help="How long each figure is measured.")] = 8,
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
    show_json(result) if as_json else show(*measure.tables(result))
