"""The command `marsls report`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from competition.cli.options import OwnData, Runs
from marsls_keras.errors import InputError


def report(
    run: Annotated[list[str], Argument(help="One run, or several to compare.")],
    out: Annotated[Path | None, Option(help="The page; runs/<run>/report.html by default.")] = None,
    data: OwnData = None,
    ledger: Annotated[
        Path | None, Option(help="Ledger with the leaderboard's answers; submissions/ledger.csv if there.")
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Write one HTML page about runs.

    It shows curves, thresholds, confusion, best and worst tiles, comparison of runs, and the leaderboard's answers.

    Example:
        ```sh
        marsls report unet segmenter --out report.html
        ```
    """
    from competition.commands import report
    from competition.console import show

    if out is not None and out.is_dir():
        raise InputError(f"--out {out} is a folder. Give the file to write, such as {out / 'report.html'}.")
    show(str(report.report(run, runs, out, data, ledger)))
