"""Exceptions that the command line reports by their message, with the exit code of the program."""

from __future__ import annotations


class MarslsError(Exception):
    """Base class of errors that the command line reports by their message alone, without a traceback.

    Example:
        >>> issubclass(InputError, MarslsError), MarslsError.exit_code
        (True, 1)
    """

    exit_code = 1


class InputError(MarslsError):
    """Report wrong or missing input: a file, a folder, a configuration key, an option; exit code 2.

    Example:
        >>> raise InputError("data/ does not exist.")
        Traceback (most recent call last):
            ...
        marsls_keras.errors.InputError: data/ does not exist.
    """

    exit_code = 2


class RunError(MarslsError):
    """Report a failure with valid input, such as a full disk or a diverged training; exit code 1.

    Example:
        >>> RunError("Could not write best.weights.h5: disk full.").exit_code
        1
    """

    exit_code = 1


class Interrupted(MarslsError):
    """Report a training that was stopped by a signal, after it saved its state.

    Args:
        number: Number of the signal; the exit code is 128 more, as in a shell.
        where: Where training stopped.

    Example:
        >>> stopped = Interrupted(15, "in epoch 3")
        >>> str(stopped), stopped.exit_code
        ('Stopped in epoch 3; the state is saved.', 143)
    """

    def __init__(self, number: int, where: str) -> None:
        super().__init__(f"Stopped {where}; the state is saved.")
        self.exit_code = 128 + number


def listing(items: list[str], limit: int = 20) -> str:
    """Format items as an indented list of at most `limit` lines, and the number of those left out.

    Example:
        >>> print("Unknown keys:" + listing(["lr", "wd", "bs"], limit=2))
        Unknown keys:
          - lr
          - wd
          … and 1 more
    """
    shown = "".join(f"\n  - {item}" for item in items[:limit])
    return shown + (f"\n  … and {len(items) - limit} more" if len(items) > limit else "")
