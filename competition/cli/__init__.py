"""The command line: one file per command, which parses arguments, calls a function and prints its result."""

from __future__ import annotations

import os
import sys

from marsls_keras.errors import MarslsError
from marsls_keras.plugins import load_plugin

PLUGINS = "MARSLS_PLUGINS"
"""Variable of the environment that names plug-ins, separated as in PATH."""


def main(arguments: list[str] | None = None) -> int:
    """Load the plug-ins of the environment, run a command and return its exit code; see `competition.cli.app.main`.

    The plug-ins come first, since the options of commands list the datasets that they register.

    Example:
        >>> main(["--version"])  # doctest: +SKIP
        0
    """
    try:
        for name in filter(None, os.environ.get(PLUGINS, "").split(os.pathsep)):
            load_plugin(name)
    except MarslsError as error:
        print(f"Error: {PLUGINS}: {error}", file=sys.stderr)
        return error.exit_code
    from competition.cli.app import main as command

    return command(arguments)


__all__ = ["main"]
