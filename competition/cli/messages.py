"""Where the messages of the modules' loggers go while a command runs: to stderr, above the bar of a stage if there is one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from marsls_keras.progress import write

_PACKAGES = ("marsls_keras", "competition")


class _Stderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        write(record.getMessage())  # what it raises ends the command: nobody reads what is said any more


@contextmanager
def messages_on_stderr() -> Iterator[None]:
    """Write the messages of the packages' loggers to stderr within the block, and leave the loggers as they were after it.

    Example:
        >>> with messages_on_stderr():
        ...     logging.getLogger("marsls_keras.training").info("Fold 0 of run default is finished already.")
    """
    loggers = [logging.getLogger(name) for name in _PACKAGES]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    handler = _Stderr()
    try:
        for logger in loggers:
            logger.handlers, logger.propagate = (
                [handler],
                False,
            )  # what else listens, such as a handler of absl, would repeat them
            logger.setLevel(logging.INFO)
        yield
    finally:
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
