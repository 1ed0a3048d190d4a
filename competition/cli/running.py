"""Run a command within this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, the convention of shells."""


def run(application: Callable[..., Any], arguments: list[str] | None) -> int:
    """Run a Typer application and return its exit code; errors are raised.

    Args:
        application: The application.
        arguments: The words of the command line; those of this process if None.

    Raises:
        KeyboardInterrupt: After Ctrl-C.

    Example:
        >>> application = typer.Typer()
        >>> @application.command()
        ... def hello(name: str) -> None:
        ...     print(f"Hello {name}")
        >>> run(application, ["Mars"])
        Hello Mars
        0
    """
    try:
        code = int(application(args=arguments, prog_name="marsls", standalone_mode=False) or 0)
    except typer.Exit as stop:
        code = stop.exit_code
    if code == INTERRUPTED:  # typer turns Ctrl-C into an exit code
        raise KeyboardInterrupt
    return code
