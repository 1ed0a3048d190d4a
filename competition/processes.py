"""Train several folds at once, each in a process with its own GPU or its share of the CPU cores."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from queue import SimpleQueue

from marsls_keras.errors import InputError, Interrupted, RunError, listing

logger = logging.getLogger(__name__)

PROGRAM = (sys.executable, "-m", "competition.cli")
"""Program and first arguments of a process that runs a command of `marsls`."""

_COUNT = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"


def device_environments(jobs: int, option: str = "--jobs", work: str = "fold") -> list[dict[str, str]]:
    """Return the environment variables that give each of `jobs` processes its own GPU; empty ones without GPUs.

    The GPUs are counted in a short-lived process, since TensorFlow reserves the memory of a GPU that it sees.

    Args:
        jobs: Number of processes.
        option: Option that sets it, for the error message.
        work: What a process works on, likewise.

    Raises:
        InputError: If there are GPUs, but fewer than processes.
        RunError: If the GPUs cannot be counted.

    Example:
        >>> device_environments(2)  # with two GPUs  # doctest: +SKIP
        [{'CUDA_VISIBLE_DEVICES': '0'}, {'CUDA_VISIBLE_DEVICES': '1'}]
    """
    counted = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True)
    if counted.returncode:
        raise RunError(f"The GPUs of this machine could not be counted: {counted.stderr.strip().splitlines()[-1]}")
    gpus = int(counted.stdout.split()[-1])
    if not gpus:
        return [{}] * jobs
    if jobs > gpus:
        raise InputError(
            f"{option} {jobs}: there {'is one GPU' if gpus == 1 else f'are {gpus} GPUs'}, "
            f"and each {work} needs one of its own."
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
    return [{"CUDA_VISIBLE_DEVICES": number} for number in visible[:jobs]]


def core_limits(at_once: int) -> dict[str, str]:
    """Return the environment variables that limit each of `at_once` processes to its share of the CPU cores.

    Example:
        >>> core_limits(2)  # with four cores  # doctest: +SKIP
        {'TF_NUM_INTRAOP_THREADS': '2', 'OMP_NUM_THREADS': '2'}
    """
    threads = str(max(1, (os.cpu_count() or 1) // at_once))
    return {"TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads}


def worker_environments(jobs: int, option: str = "--jobs", work: str = "fold") -> list[dict[str, str]]:
    """Return all environment variables of each of `jobs` processes: a GPU of its own, or its share of the cores.

    The user's own limits of threads stay.

    Args:
        jobs: Number of processes.
        option: Option that sets it, for the error message.
        work: What a process works on, likewise.

    Raises:
        InputError: As `device_environments`.
        RunError: Likewise.

    Example:
        >>> len(worker_environments(1))
        1
    """
    devices = device_environments(jobs, option, work) if jobs > 1 else [{}]
    limits = {} if jobs == 1 or any(devices) else core_limits(jobs)
    return [{**limits, **os.environ, **device} for device in devices]


def train_side_by_side(commands: Mapping[int, Sequence[str]], environments: Sequence[Mapping[str, str]]) -> None:
    """Run a command for each fold in parallel processes, and forward their log lines.

    As many run at once as there are environments.

    Args:
        commands: Arguments of `marsls` by fold.
        environments: Environment variables of each process, as `device_environments` returns them.

    Raises:
        RunError: If some failed; the others were trained to the end.
        Interrupted: If a signal came; it was passed on, and the processes have saved their state.

    Example:
        >>> train_side_by_side({fold: ["train", "--fold", str(fold)] for fold in (0, 1)}, [{}, {}])  # doctest: +SKIP
    """
    from marsls_keras.signals import Signals

    at_once = min(len(environments), len(commands))
    limits = {} if any(environments) else core_limits(at_once)
    free: SimpleQueue[Mapping[str, str]] = SimpleQueue()
    for environment in environments[:at_once]:
        free.put(environment)
    running: dict[int, subprocess.Popen[str]] = {}
    said: dict[int, list[str]] = {fold: [] for fold in commands}
    stopping, lock = threading.Event(), threading.Lock()

    def end(how: Callable[[subprocess.Popen[str]], None]) -> None:
        """End the running processes and start no more."""
        with lock:
            stopping.set()
            for process in running.values():
                how(process)

    def train(fold: int) -> int | None:
        """Train a fold and return the exit code, or None if it was not started."""
        environment = free.get()
        try:
            with lock:
                if stopping.is_set():
                    return None
                # Its own session, so that Ctrl-C reaches it only once, through this process.
                running[fold] = process = subprocess.Popen(
                    [*PROGRAM, *commands[fold]],
                    env={**limits, **os.environ, **environment},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
            assert process.stderr is not None
            for line in process.stderr:
                said[fold].append(line.rstrip())
                logger.info(said[fold][-1] if f"fold {fold}" in line else f"fold {fold}: {said[fold][-1]}")
            return process.wait()
        finally:
            free.put(environment)

    with Signals() as signals, ThreadPoolExecutor(at_once) as pool:
        try:
            futures = {fold: pool.submit(train, fold) for fold in commands}
            while wait(futures.values(), timeout=0.2).not_done:
                if signals.received and not stopping.is_set():
                    end(subprocess.Popen.terminate)
            codes = {fold: future.result() for fold, future in futures.items()}
        except BaseException:  # a second signal, or stderr is closed
            end(subprocess.Popen.kill)
            raise
    if signals.received and any(code != 0 for code in codes.values()):
        raise Interrupted(signals.received, "with all folds")
    failed = [f"fold {fold} (exit code {code}): {last_error(said[fold])}" for fold, code in codes.items() if code]
    if failed:
        others = "The others are trained." if len(failed) < len(commands) else ""
        raise RunError(f"{len(failed)} of {len(commands)} folds failed:{listing(failed)}\n{others}".rstrip())


def last_error(lines: Sequence[str]) -> str:
    """Return the error message that a process ended with, or its last line.

    Example:
        >>> last_error(["epoch 1", "Error: Training diverged."])
        'Training diverged.'
    """
    begin = max((i for i, line in enumerate(lines) if line.startswith("Error: ")), default=len(lines) - 1)
    return "\n    ".join(lines[max(begin, 0) :]).removeprefix("Error: ")
