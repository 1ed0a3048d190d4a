"""The same network in another library, in a process of its own: the measure that `marsls bench --peer` compares with."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from marsls_keras.config import Config
from marsls_keras.errors import InputError, RunError

NETWORKS = {"torch": ("unet",)}
"""The peers, and the networks that each has a counterpart of."""


def require_peer(name: str, config: Config) -> None:
    """Refuse a peer that cannot be compared with.

    Raises:
        InputError: If there is no such peer, it has no counterpart of the recipe's network, or its library is not installed.
    """
    if name not in NETWORKS:
        raise InputError(f"--peer {name}: there is no such peer. Known: {', '.join(NETWORKS)}.")
    if config.model.name not in NETWORKS[name]:
        raise InputError(f"--peer {name}: it has no counterpart of {config.model.name}, only of {', '.join(NETWORKS[name])}.")
    if find_spec(name) is None:
        raise InputError(f"--peer {name}: {name} is not installed here. pip install {name} brings it.")


class Peer:
    """A network of another library, as a context manager.

    It has a process of its own, since two libraries in one get in the way of each other's threads; it sleeps while it has no turn.

    Args:
        name: Name of the peer.
        config: The recipe.
        shapes: Shape (B, H, W, C) of a batch by what is measured: "training" and "inference".

    Attributes:
        facts: "parameters" (trainable ones), "version", "device" and "threads" of the peer.

    Raises:
        RunError: If the process fails, here or in a turn.
    """

    def __init__(self, name: str, config: Config, shapes: dict[str, tuple[int, ...]]) -> None:
        self.name = name
        wanted = {"config": config.model_dump(mode="json"), "shapes": shapes}
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"competition.bench.{name}_peer", json.dumps(wanted)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        try:
            self.facts: dict[str, Any] = self._answer()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Peer:
        """Return the peer."""
        return self

    def __exit__(self, *_: object) -> None:
        """End its process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def turn(self, what: str, seconds: float) -> list[float]:
        """Repeat "training" or "inference" steps for this long, and return the seconds that each took."""
        assert self._process.stdin is not None
        try:
            print(what, seconds, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # why it ended is read below
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines()
            raise RunError(f"--peer {self.name}: its process ended with code {code}: {said[-1] if said else 'it said nothing'}")
        return json.loads(line)


def timed(step: Callable[[], Any], seconds: float) -> list[float]:
    """Repeat a step for this long, at least once, and return the seconds that each took."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return taken
