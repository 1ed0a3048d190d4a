"""The command line: one thin file a command."""

from competition.cli.app import main

__all__ = ["main"]
