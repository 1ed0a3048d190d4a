"""The command `marsls demo`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from competition.cli.running import run


def demo(
    context: typer.Context,
    out: Annotated[Path, Option(help="Folder to work in.")] = Path("demo"),
) -> None:
    """Run every step on synthetic tiles: synth, check, train, tune, submit, score, report.

    Example:
        ```sh
        marsls demo --out demo
        ```
    """
    from competition.commands.demo import run_demo

    run_demo(out, lambda arguments: run(context.find_root().command, arguments))
