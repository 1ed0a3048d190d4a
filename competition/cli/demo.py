"""The command `marsls demo`."""

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
    """Do the whole job on generated tiles: synth, check, train, tune, submit, score, report."""
    from competition.commands.demo import run_demo

    run_demo(out, lambda arguments: run(context.find_root().command, arguments))
