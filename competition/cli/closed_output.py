"""End a command quietly when the reader of its output has closed the pipe, as in `marsls models | head -1`."""

from __future__ import annotations

import os
import select
import sys

CLOSED = 141
"""Exit code if standard output is a closed pipe: 128 + SIGPIPE, as shells report programs that the signal ends."""


def output_closed() -> bool:
    """Return whether standard output is a pipe whose reading end is closed.

    Example:
        >>> output_closed()
        False
    """
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
    """Redirect standard output to the null device, so that a later flush cannot fail, and return `CLOSED`.

    Example:
        >>> close_output()  # doctest: +SKIP
        141
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return CLOSED
