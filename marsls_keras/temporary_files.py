"""Name temporary files after the process that writes them, and remove those of killed processes."""

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
"""Least seconds between two searches of a folder, since a prediction may write ten thousand files into it."""

_swept: dict[Path, float] = {}


def temporary_beside(path: Path) -> Path:
    """Return a hidden, unique path beside a file: .<machine and container>-<process>-<random>.<name>.

    Example:
        >>> temporary_beside(Path("runs/best.weights.h5")).name.endswith(".best.weights.h5")
        True
    """
    return path.with_name(f".{_place()}-{os.getpid()}-{secrets.token_hex(4)}.{path.name}")


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files in a folder whose processes have ended.

    Only files from `temporary_beside` on this machine and in this container since its last start are removed, since
    process numbers are valid there only. Files of other machines or containers that share the folder stay.

    Example:
        >>> Path("best.weights.h5").touch()
        >>> remove_abandoned(Path("."))
        >>> Path("best.weights.h5").exists()  # no temporary file
        True
    """
    now = time.monotonic()
    if not _place_is_sure() or now - _swept.get(folder, -_PAUSE) < _PAUSE:
        return
    _swept[folder] = now
    with suppress(OSError):  # an unreadable folder is reported by the code that writes there
        for name in os.listdir(folder):
            found = _OURS.match(name)
            if found and found[1] == _place() and not _alive(int(found[2])):
                with suppress(OSError):
                    (folder / name).unlink()


@cache
def _place() -> str:
    """Return eight hexadecimal digits that identify this boot of the machine and the container."""
    return hashlib.sha256("\n".join(_facts()).encode()).hexdigest()[:8]


@cache
def _place_is_sure() -> bool:
    """Return whether boot and container are known; elsewhere than on Linux they are not, and no files are removed."""
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
    except (OSError, OverflowError):  # a process of another user
        return True
    return True
