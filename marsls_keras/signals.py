"""Handle SIGINT and SIGTERM as a request to stop after the current training step."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Signals:
    """Context manager that records SIGINT and SIGTERM as a request to stop after the current step.

    A second signal takes effect at once. A signal that the process ignores, as background jobs of a shell do, is still
    ignored. Outside the main thread, where Python delivers no signals, the context does nothing.

    Attributes:
        received: Number of the signal that arrived, or None.

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
