"""The errors a user meets: one clear message each, and the exit code it ends the program with."""

from __future__ import annotations


class MarslsError(Exception):
    """Base of the errors that are reported by their message alone, without a traceback."""

    exit_code = 1


class InputError(MarslsError):
    """What the user gave is wrong or missing: a file, a folder, a configuration key, an option."""

    exit_code = 2


class RunError(MarslsError):
    """The input was right, but the work failed: a full disk, a diverged training."""

    exit_code = 1


class Interrupted(MarslsError):
    """Training was asked to stop by a signal, and has saved its state.

    Args:
        number: Number of the signal; the exit code is 128 more, as in a shell.
        where: Where training stopped.
    """

    def __init__(self, number: int, where: str) -> None:
        super().__init__(f"Stopped {where}; the state is saved.")
        self.exit_code = 128 + number


def listing(items: list[str], limit: int = 20) -> str:
    """Return the items as an indented list, at most `limit` of them, and how many were left out."""
    shown = "".join(f"\n  - {item}" for item in items[:limit])
    return shown + (f"\n  … and {len(items) - limit} more" if len(items) > limit else "")
