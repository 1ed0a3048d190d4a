"""A reader of our output that has seen enough, as in `marsls models | head -1`, is no error."""

from __future__ import annotations

import os
import select
import sys

CLOSED = 141
"""Exit code where nobody reads standard output any more: 128 + SIGPIPE, as a shell has it of programs that this signal ends."""


def output_closed() -> bool:
    """Return whether standard output is a pipe that nobody reads any more."""
    try:
        output = sys.__stdout__.fileno() if sys.__stdout__ else -1
        if not hasattr(select, "poll"):
            return False
        watch = select.poll()
        watch.register(output, 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0))
    except (OSError, ValueError):
        return False


def close_output() -> int:
    """Let what is still to be written to standard output go nowhere, and return the exit code."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return CLOSED
