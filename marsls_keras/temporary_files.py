"""Temporary files say which process they belong to, so that what a killed one has left is told from what a living one writes."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

_OURS = re.compile(r"\.([0-9a-f]{8})-([0-9]{1,10})-[0-9a-f]{8}\..")

_PAUSE = 10.0
"""Seconds within which a folder is not looked through again: a prediction may write ten thousand files into one."""

_swept: dict[Path, float] = {}


def temporary_beside(path: Path) -> Path:
    """Return a hidden name beside a file that no other process and no other call has: .<place>-<process>-<random>.<name>."""
    return path.with_name(f".{_place()}-{os.getpid()}-{secrets.token_hex(4)}.{path.name}")


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files in a folder whose process is gone.

    Only those with a name of `temporary_beside` from this place, where a number of a process means the same. Those of other machines or
    containers that share the folder stay, whether these processes live or not, and so do those from before the machine was started anew.
    """
    now = time.monotonic()
    if not _place_is_sure() or now - _swept.get(folder, -_PAUSE) < _PAUSE:
        return
    _swept[folder] = now
    with suppress(OSError):  # a folder that cannot be read is told by whoever writes there
        for name in os.listdir(folder):
            found = _OURS.match(name)
            if found and found[1] == _place() and not _alive(int(found[2])):
                with suppress(OSError):
                    (folder / name).unlink()


@cache
def _place() -> str:
    """Return eight hexadecimal digits for this start of this machine and, within it, this container."""
    return hashlib.sha256("\n".join(_facts()).encode()).hexdigest()[:8]


@cache
def _place_is_sure() -> bool:
    """Return whether the place is known: elsewhere than on Linux, no process is taken for gone."""
    return len(_facts()) == 2


@cache
def _facts() -> tuple[str, ...]:
    if sys.platform != "linux":
        return ("elsewhere",)
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return started, os.readlink("/proc/self/ns/pid")
    except (OSError, ValueError):
        return ("elsewhere",)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # someone else's
        return True
    return True
