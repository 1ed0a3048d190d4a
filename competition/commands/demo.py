"""Run every step from synthetic tiles to a submission and a report, as a user would type it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from competition.console import show
from marsls_keras.errors import InputError, RunError
from marsls_keras.files import write_text

_MARK = ".marsls-demo"


def run_demo(out: Path, command: Callable[[list[str]], int]) -> None:
    """Run all steps of the demo in a folder; a folder of an earlier demo is replaced.

    Args:
        out: Folder to work in.
        command: Runs `marsls` with arguments and returns its exit code, or raises what is wrong.

    Raises:
        InputError: If `out` holds anything but an earlier demo, or is a file.
        RunError: If a step fails.

    Example:
        >>> run_demo(Path("demo"), main)  # doctest: +SKIP
    """
    began = time.perf_counter()
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is not a folder. Choose another one with --out.")
    if out.exists() and any(out.iterdir()):
        if not (out / _MARK).exists():
            raise InputError(f"{out} is not empty and not from an earlier demo. Choose another folder with --out.")
        shutil.rmtree(out)
    write_text(out / _MARK, "Made by marsls demo, which may replace this folder.\n")
    data, runs, submission = str(out / "data"), str(out / "runs"), str(out / "submissions" / "demo.zip")
    steps = [
        ["synth", data, "--train", "48", "--val", "12", "--test", "16"],
        ["check", data],
        ["train", "--config", "demo", "--data", data, "--runs", runs],
        ["tune", "--run", "demo", "--runs", runs],
        ["submit", "--run", "demo", "--runs", runs, "--out", submission],
        ["score", submission, "--masks", f"{data}/test/masks"],
        ["report", "demo", "--runs", runs],
    ]
    for step in steps:
        show(f"\n$ marsls {' '.join(step)}")
        code = command(step)
        if code:
            raise RunError(f"marsls {step[0]} ended with exit code {code}; what was made so far is in {out}.")
    show(
        f"\nDone in {time.perf_counter() - began:.0f} s. The verified zip is {submission}, "
        f"the page {runs}/demo/report.html."
    )
    show("With your own tiles in data/, the first step is the same. Next: marsls check data")
