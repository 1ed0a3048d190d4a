"""SIGINT and SIGTERM as a request to stop after the current training step."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Signals:
    """Record SIGINT and SIGTERM as a request to stop after the current step; a second signal acts at once.

    A context manager. `received` is the number of the signal that came, or None. A signal that the process was told to
    ignore, as a shell tells its background jobs, is still ignored. Outside the main thread, where Python delivers no
    signals, it does nothing.

    Example:
        >>> with Signals() as signals:
        ...     signals.received is None
        True
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._take) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the earlier handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self.__exit__()
