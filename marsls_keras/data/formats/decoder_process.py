"""Run a decoder of untrusted files in a child process, which is reused and restarted after a crash."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from marsls_keras.errors import RunError

WALL_SECONDS = 60.0
"""Seconds after which a process that does not answer is killed.

The process limits its own CPU time to less, but a disk may stall.
"""

_SIGXCPU = 24  # the same number on every system that has this signal


class Crash(Exception):
    """Error: the decoder process ended while it read a file; the message says how.

    Example:
        >>> raise Crash("signal 11")
        Traceback (most recent call last):
        marsls_keras.data.formats.decoder_process.Crash: signal 11
    """


class Slow(Crash):
    """Error: the decoder process was killed because it exceeded its time limit.

    Example:
        >>> issubclass(Slow, Crash)
        True
    """


class Decoder:
    """Child process that runs a decoder script and answers one request after another.

    It starts with the first request and ends when this process ends for any reason. Threads and forked processes may
    send requests, too.

    Args:
        script: Script that answers each line of JSON with a line of JSON, whose "bytes" says how many bytes follow it.

    Example:
        >>> decoder = Decoder(Path("hdf5_decoder.py"))  # doctest: +SKIP
        >>> reply, values = decoder.ask(path="image_1.h5", keys=["img"], most=1 << 24, pixels=True)  # doctest: +SKIP
    """

    def __init__(self, script: Path) -> None:
        self._script = script
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.close)

    def ask(self, **request: Any) -> tuple[dict[str, Any], np.ndarray]:
        """Send a request; return the reply and the bytes that follow it, as uint8.

        Raises:
            Crash: If a signal kills the process, it does not answer in time, or its answer is invalid.
            RunError: If the process cannot be started, or exits by itself.
        """
        with self._lock:
            fresh = self._process is None
            try:
                return self._ask(request)
            except Slow:
                raise
            except Crash:
                if fresh:
                    raise
            return self._ask(request)  # an earlier file may have damaged the process, so try a new one

    def close(self) -> None:
        """Kill the process if it is running."""
        with self._lock:
            self._end()

    def _forget(self) -> None:
        """Start without a process and with a new lock; a fork must not use its parent's."""
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
        """Send one request with a time limit; after any failure the process is ended."""
        process = self._start() if self._process is None else self._process
        assert process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(WALL_SECONDS, stop)
        timer.daemon = True
        timer.start()
        try:
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except OSError:  # the process ended before it read the request
                answer = b""
            if answer.endswith(b"\n"):
                reply = json.loads(answer)
                data = np.empty(reply.pop("bytes"), np.uint8)
                if not len(data) or process.stdout.readinto(data.data) == len(data):  # type: ignore[attr-defined]
                    return reply, data
            self._end()
            if late.is_set() or process.returncode == -_SIGXCPU:
                raise Slow("it took too long")
            if process.returncode >= 0:  # it failed to start or exited: a bad file kills it by a signal
                raise RunError(
                    f"The process that reads HDF5 ended with exit code {process.returncode}. Does `import h5py` work?"
                )
            raise Crash(f"signal {-process.returncode}")
        except (Crash, RunError):
            raise
        except (ValueError, KeyError, TypeError) as error:
            self._end()
            raise Crash(f"an answer that makes no sense, {error}") from error
        except BaseException:  # such as Ctrl-C: the rest of this answer would be taken for the next one
            self._end()
            raise
        finally:
            timer.cancel()

    def _start(self) -> subprocess.Popen[bytes]:
        """Start the script in a child process that can import what this process can."""
        # -P: modules beside the script have common names and must not be imported. One thread: more would only reserve
        # memory.
        command = [sys.executable, "-P", str(self._script)]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment
            )
        except OSError as error:
            raise RunError(f"Could not start {' '.join(command)}: {error.strerror}. It reads files of HDF5.") from error
        return self._process

    def _end(self) -> None:
        """Kill the process, wait for it, and close its pipes."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            try:
                stream.close()
            except OSError:  # part of a request was not written
                pass
