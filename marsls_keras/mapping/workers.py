"""Compute shards in several processes of one machine, each with its own device or its share of the CPU cores."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO

from marsls_keras.errors import InputError, MarslsError, RunError
from marsls_keras.mapping.shards import Advance

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a shard is computed whose process ends; then it is taken to be the reason."""


def compute_in_processes(
    out: Path,
    runs: Path,
    raster: str,
    numbers: Sequence[int],
    environments: Sequence[Mapping[str, str]],
    advance: Advance,
) -> Iterator[int]:
    """Compute shards in processes, and yield the number of each finished one.

    Processes are started anew, never forked, since TensorFlow does not survive that. A process that ends, such as one
    that is killed for its memory, loses the shard that it computes; another one is started for it.

    Args:
        out: Folder of the map.
        runs: Folder of the runs.
        raster: The raster.
        numbers: The shards.
        environments: Environment variables of each process.
        advance: Function that is called with the number of windows that were predicted.

    Raises:
        InputError: If a process cannot read its input.
        RunError: If a shard cannot be written, or `ATTEMPTS` processes ended over it.

    Example:
        >>> environments = [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
        >>> done = compute_in_processes(Path("valles"), Path("runs"), "valles.tif", range(100), environments, print)
        >>> sorted(done)[:2]  # doctest: +SKIP
        [0, 1]
    """
    office = _Office(numbers)
    command = [sys.executable, "-m", "marsls_keras.mapping.worker", str(out), str(runs), raster]
    workers = [_Worker(office, command, environment) for environment in environments[: max(len(numbers), 1)]]
    for worker in workers:
        worker.start()
    try:
        left = len(numbers)
        while left:
            event = office.events.get()
            if isinstance(event, MarslsError):
                raise event
            kind, number = event
            if kind == "windows":
                advance(number)
            else:
                left -= 1
                yield number
    finally:
        office.close()
        for worker in workers:
            worker.kill()
            worker.join()


class _Office:
    """Shards that are to be computed, and what workers report; shared by all threads.

    Args:
        numbers: The shards.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._waiting, self._lock = deque(numbers), threading.Lock()
        self.events: SimpleQueue[tuple[str, int] | MarslsError] = SimpleQueue()
        self.attempts: Counter[int] = Counter()

    def take(self) -> int | None:
        """Return the next shard, None if all are taken."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """Give out no more shards."""
        with self._lock:
            self._waiting.clear()


class _Worker(threading.Thread):
    """Thread that leads one process: it hands out shards, and starts another process when one ends.

    Args:
        office: Where shards come from and reports go.
        command: Command of the process.
        environment: Environment variables of the process, besides those of this one.
    """

    def __init__(self, office: _Office, command: Sequence[str], environment: Mapping[str, str]) -> None:
        super().__init__(daemon=True)
        self._office, self._command, self._environment = office, command, environment
        self._process: subprocess.Popen[str] | None = None
        self._killed, self._lock = False, threading.Lock()

    def run(self) -> None:
        """Have shards computed until there are none."""
        number, following = self._office.take(), self._office.take()
        with tempfile.TemporaryFile("w+") as said:
            while number is not None and self._started(said):
                answered = self._ask(number, following)
                if answered:
                    number, following = following, self._office.take()
                    continue
                if answered is None:
                    return  # an error that was reported
                self._office.attempts[number] += 1
                if self._killed or not self._again(number, said):
                    return
        self.kill()

    def kill(self) -> None:
        """End the process, and start no more."""
        with self._lock:
            self._killed = True
            if self._process is not None:
                self._process.kill()

    def _started(self, said: IO[str]) -> bool:
        """Start a process unless one runs; return False if no more are to be started."""
        with self._lock:
            if self._killed:
                return False
            if self._process is None or self._process.poll() is not None:
                pipe = subprocess.PIPE
                self._process = subprocess.Popen(
                    self._command,
                    stdin=pipe,
                    stdout=pipe,
                    stderr=said,
                    text=True,
                    env={**os.environ, **self._environment},
                    start_new_session=True,  # Ctrl-C reaches it through this process alone
                )
            return True

    def _ask(self, number: int, following: int | None) -> bool | None:
        """Have a shard computed; return True if it is finished, False if the process ended, None after an error."""
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):  # seen below
            print(number, "-" if following is None else following, file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            kind, *content = json.loads(line)
            if kind == "windows":
                self._office.events.put(("windows", content[0]))
            elif kind == "done":
                self._office.events.put(("done", number))
                return True
            else:
                self._office.events.put({"InputError": InputError}.get(content[0], RunError)(content[1]))
                return None
        self._process.wait()
        return False

    def _again(self, number: int, said: IO[str]) -> bool:
        """Return whether a shard is to be tried again after its process ended; else report why not."""
        code = None if self._process is None else self._process.returncode
        if self._office.attempts[number] < ATTEMPTS:
            logger.warning(f"Warning: a process ended with code {code} over shard {number}; another one computes it.")
            return True
        said.seek(0)
        last = said.read().strip().splitlines()[-1:] or ["it said nothing"]
        self._office.events.put(
            RunError(f"{ATTEMPTS} processes ended over shard {number}, the last with code {code}: {last[0]}")
        )
        return False
