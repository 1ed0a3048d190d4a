"""Read what a worker asks of a process that it started, and end the process with the worker."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import TypeVar

from marsls_keras.errors import InputError

_Request = TypeVar("_Request")


def read_request(kind: type[_Request], command: str) -> _Request:
    """Read a request as one line of JSON from standard input, and let this process end when its parent does.

    The parent holds the other end of standard input open. Not a command-line argument, since a request may hold the
    password of a database.

    Args:
        kind: Dataclass of the request, whose fields are the keys.
        command: The command that starts such processes, for the message.

    Raises:
        InputError: If there is no such line.

    Example:
        >>> read_request(TrialRequest, "search").folds  # doctest: +SKIP
        [0]
    """
    # Unbuffered, since a buffer would stay locked by the thread that waits below.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as pipe:
        try:
            request = kind(**json.loads(pipe.readline()))
        except (ValueError, TypeError, RecursionError):
            raise InputError(f"marsls {sys.argv[1]} is told what to do by marsls {command}, which starts it.") from None
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return request


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)
