"""The command line: one file per command, which parses arguments, calls a function and prints its result."""

from competition.cli.app import main

__all__ = ["main"]
