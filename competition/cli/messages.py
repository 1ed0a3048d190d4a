"""Send the messages of the packages' loggers to stderr, above a progress bar if there is one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from marsls_keras.progress import write

_PACKAGES = ("marsls_keras", "competition")


class _Stderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        write(record.getMessage())  # an error here ends the command, since nobody reads its messages any more


@contextmanager
def messages_on_stderr() -> Iterator[None]:
    """Write log messages of the packages to stderr within the block, and restore the loggers after it.

    Example:
        >>> with messages_on_stderr():
        ...     logging.getLogger("marsls_keras.training").info("Fold 0 is finished already.")
    """
    loggers = [logging.getLogger(name) for name in _PACKAGES]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    handler = _Stderr()
    try:
        for logger in loggers:
            # Other handlers, such as that of absl, would repeat the messages.
            logger.handlers, logger.propagate = [handler], False
            logger.setLevel(logging.INFO)
        yield
    finally:
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
