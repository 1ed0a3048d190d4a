"""Show the progress of stages on stderr: a bar on a terminal, else a line every ten seconds; none for short stages.

Results go to stdout, so that progress does not mix with them. Epochs have a bar of their own
(marsls_keras/training/callbacks/progress.py).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, TypeVar

Item = TypeVar("Item")

FIRST = 2.0
"""Seconds after which a running stage is shown."""

EVERY = 10.0
"""Seconds between lines where stderr is not a terminal."""

_open: list[Stage] = []
_lock = threading.RLock()


class Stage:
    """Counter of the steps of a stage of work; created by `stage`.

    Args:
        title: Title of the stage, such as "Reading tiles".
        total: Number of steps; None if it is not known.
        time_left: Whether the time that is left is shown, too: for stages of minutes or hours, whose steps take equal
            times.

    Example:
        >>> reading = Stage("Reading tiles", total=3)
        >>> reading.advance(2)
        >>> reading.line()
        'Reading tiles … 2/3'
    """

    def __init__(self, title: str, total: int | None, time_left: bool = False) -> None:
        self.title, self.total, self.done = title, total, 0
        self._begun = time.monotonic() if time_left else None

    def advance(self, steps: int = 1) -> None:
        """Increase the number of finished steps."""
        self.done += steps

    def line(self) -> str:
        """Return title and steps as a line of text."""
        return f"{self.title} … {self.count()}".rstrip()

    def count(self) -> str:
        """Return the steps, and the time that is left once some are done; "" if their number is not known."""
        if self.total is None:
            return ""
        steps = f"{self.done}/{self.total}"
        if self._begun is None or not self.done:
            return steps
        return f"{steps}, {_duration((time.monotonic() - self._begun) / self.done * (self.total - self.done))} left"


@contextmanager
def stage(title: str, total: int | None = None, time_left: bool = False) -> Iterator[Stage]:
    """Show the progress of a block on stderr; while a nested stage runs, only that one is shown.

    Args:
        title: Title of the stage, such as "Reading tiles".
        total: Number of steps that `advance` will count; None if it is not known.
        time_left: Whether the time that is left is shown, too.

    Example:
        >>> with stage("Reading tiles", total=3) as reading:
        ...     for _ in range(3):
        ...         reading.advance()
    """
    made = Stage(title, total, time_left)
    with _lock:
        _open.append(made)
    watch = _Watch() if len(_open) == 1 else None
    try:
        yield made
    finally:
        with _lock:
            _open.remove(made)
        if watch:
            watch.end()


def tracked(title: str, items: Collection[Item]) -> Iterator[Item]:
    """Yield items and show the progress over them on stderr, one step per item.

    Example:
        >>> [tile for tile in tracked("Reading tiles", ["a.tif", "b.tif"])]
        ['a.tif', 'b.tif']
    """
    with stage(title, len(items)) as made:
        for item in items:
            yield item
            made.advance()


def _duration(seconds: float) -> str:
    """Return seconds as text: "40 s", "12 min" or "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def write(line: str) -> None:
    """Write a line to stderr, above the progress bar if there is one.

    Example:
        >>> write("fold 0 is finished")
    """
    with _lock:
        if _Watch.bar is not None:
            _Watch.bar.console.print(line, soft_wrap=True, markup=False, highlight=False, emoji=False)
            return
    from rich.console import Console

    Console(stderr=True, markup=False, highlight=False, emoji=False).print(line, soft_wrap=True)


class _Watch:
    """Show the innermost stage from a separate thread, so that stages without steps are also shown."""

    bar: Any = None

    def __init__(self) -> None:
        self._over = threading.Event()
        self._stream = _own_stderr()
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop showing progress; a bar is removed."""
        self._over.set()
        self._thread.join()
        if self._stream is not sys.stderr:
            self._stream.close()

    def _show(self) -> None:
        if self._over.wait(FIRST):
            return
        with suppress(OSError, ValueError, AttributeError):  # a closed stderr must not stop the work
            if self._stream.isatty():
                self._show_bar()
                return
            while True:
                with _lock:
                    text = _open[-1].line() if _open else ""
                if text:
                    print(text, file=self._stream, flush=True)
                if self._over.wait(EVERY):
                    return

    def _show_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
        )
        with Progress(*columns, TimeElapsedColumn(), console=Console(file=self._stream), transient=True) as bar:
            shown: Stage | None = None
            task = bar.add_task("", total=None, count="", visible=False)
            _Watch.bar = bar
            try:
                while True:
                    with _lock:
                        now = _open[-1] if _open else None
                    if now is not None:
                        if now is not shown:
                            bar.reset(task, description=now.title)
                            shown = now
                        steps = {"total": now.total, "completed": now.done, "count": now.count()}
                        bar.update(task, description=now.title, visible=True, **steps)
                    if self._over.wait(0.1):
                        return
            finally:
                with _lock:
                    _Watch.bar = None


def _own_stderr() -> TextIO:
    """Return a copy of stderr with another file descriptor, which `quiet_stderr` does not redirect."""
    try:
        return os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="backslashreplace")
    except (OSError, ValueError, AttributeError):  # a replaced stderr, as in a test or a notebook, has no descriptor
        return sys.stderr
