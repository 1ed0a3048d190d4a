"""Running a command within this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as a shell has it."""


def run(application: Callable[..., Any], arguments: list[str] | None) -> int:
    """Run a command and return its exit code; errors are raised."""
    try:
        code = int(application(args=arguments, prog_name="marsls", standalone_mode=False) or 0)
    except typer.Exit as stop:
        code = stop.exit_code
    if code == INTERRUPTED:  # typer makes an exit code of Ctrl-C
        raise KeyboardInterrupt
    return code
