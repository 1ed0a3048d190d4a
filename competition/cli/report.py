"""The command `marsls report`: parse the arguments, call the function, print its result."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from competition.cli.options import OwnData, Runs, run_names
from marsls_keras.errors import InputError

logger = logging.getLogger(__name__)


def report(
    run: Annotated[list[str], Argument(help="Name of the run, or of several to compare.", autocompletion=run_names)],
    out: Annotated[Path | None, Option(help="File to write; by default runs/<run>/report.html.")] = None,
    data: OwnData = None,
    ledger: Annotated[
        Path | None,
        Option(help="Ledger with the leaderboard's scores; by default submissions/ledger.csv, if it is there."),
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Write one HTML page about runs.

    It shows curves, thresholds, confusion, best and worst tiles, a comparison of runs, and the leaderboard's scores.

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
    logger.info("Next: open it in a web browser.")
