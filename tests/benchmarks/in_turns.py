"""Time the same steps in two libraries in alternating turns, each library in its own process.

Two libraries in one process disturb each other's threads. PyTorch's threads wait actively, so on a machine
with other work a ratio means nothing. Each process runs a script that calls `serve`, perhaps with its own
interpreter."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

STEPS = ("training", "inference")


def keras_steps(config: Any, batch: int) -> dict[str, Callable[[], Any]]:
    """Return a training step and inference of a recipe's network, on random tiles of 128 x 128 pixels and seven bands.

    Args:
        config: A `marsls_keras.config.Config`.
        batch: Tiles B.
    """
    import numpy as np
    import tensorflow as tf

    from marsls_keras.losses import build_loss
    from marsls_keras.models import build_model
    from marsls_keras.runtime import prepare
    from marsls_keras.training.optimizer import build_optimizer

    xla = prepare(config.training)["xla"]
    network = build_model(config.model.name, bands=7, **config.model.options)
    images = np.random.default_rng(0).normal(size=(batch, 128, 128, 7)).astype(np.float32)
    masks = (images[..., :1] > 0).astype(np.float32)
    loss = build_loss(config.loss, masks)
    network.compile(optimizer=build_optimizer(config.training, 100), loss=loss, jit_compile=xla)
    network.optimizer.build(network.trainable_variables)
    network.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors((images, masks)).repeat())
    seen, predict = tf.constant(images), tf.function(lambda x: network(x, training=False), jit_compile=xla)
    return {
        "training": lambda: float(network.train_function(batches)["loss"]),
        "inference": lambda: predict(seen).numpy(),
    }


def timed(step: Callable[[], Any], seconds: float) -> list[float]:
    """Repeat a step for a given time, at least once, and return the seconds that each took."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return taken


def serve(steps: Mapping[str, Callable[[], Any]]) -> None:
    """Answer each line "STEP SECONDS" of stdin with a JSON list of the seconds that the steps took."""
    for line in sys.stdin:
        step, seconds = line.split()
        print(json.dumps(timed(steps[step], float(seconds))), flush=True)


class Process:
    """A process that serves steps, as a context manager; it sleeps while it has no turn.

    Args:
        command: Program and arguments.

    Raises:
        RuntimeError: In a turn, if the process has ended; with the last line that it wrote to stderr.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._errors = tempfile.TemporaryFile("w+")
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def turn(self, step: str, seconds: float) -> list[float]:
        """Repeat a step for a given time, and return the seconds that each took."""
        try:
            print(step, seconds, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # why it ended is read below
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines()
            raise RuntimeError(
                f"{self._process.args} ended with code {code}: {said[-1] if said else 'it said nothing'}"
            )
        return json.loads(line)


def race(commands: Mapping[str, Sequence[str]], turns: int, seconds: float) -> dict[str, dict[str, Any]]:
    """Time the steps of two libraries in turns, after a turn each to compile and warm up.

    Args:
        commands: Command of the process by library.
        turns: Turns of each library.
        seconds: How long a turn is; one step if 0.

    Returns:
        By step, the median seconds of each turn by library, and "ratio": the median over neighbouring turns of the
        second library's time over the first's, above 1 where the first is faster.
    """
    processes = {library: Process(command) for library, command in commands.items()}
    first, second = processes
    result: dict[str, dict[str, Any]] = {}
    try:
        for step in STEPS:
            rounds = [
                {library: statistics.median(process.turn(step, seconds)) for library, process in processes.items()}
                for _ in range(turns + 1)
            ][1:]
            times = {library: [taken[library] for taken in rounds] for library in processes}
            ratio = statistics.median(b / a for a, b in zip(times[first], times[second], strict=True))
            result[step] = {**times, "ratio": ratio}
    finally:
        for process in processes.values():
            process.__exit__()
    return result


def show(result: Mapping[str, Mapping[str, Any]], batch: int) -> None:
    """Print the result of `race`: seconds of each turn, tiles per second of the median turn, and the ratio."""
    for step, found in result.items():
        *libraries, _ = found
        shown = [
            f"{library} {' '.join(f'{t:.3f}' for t in found[library])} s "
            f"({batch / statistics.median(found[library]):.1f} tiles/s)"
            for library in libraries
        ]
        print(f"{step}, {batch} tiles: {', '.join(shown)}; {libraries[1]} / {libraries[0]} {found['ratio']:.2f}")
