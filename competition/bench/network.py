"""Measure the training and inference steps of a network, its latency for a tile, and its memory."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from competition.bench.flops import count_flops
from marsls_keras.config import Config
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.fingerprint import fingerprint
from marsls_keras.data.normalization import Normalizer
from marsls_keras.data.splits import make_splits
from marsls_keras.lazy_imports import keras, tf
from marsls_keras.runs.run import Run
from marsls_keras.runtime import peak_memory

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from marsls_keras.training.fold_data import FoldData

_LATENCIES, _WARM_UP = 100, 10
"""Predictions of a single tile whose median is the latency, and those before them that do not count."""

_TURNS = 5
"""Number of measurements of each speed; the median is reported, since timings are noisy."""

Turn = Callable[[float], float]
"""Function that works for about the given number of seconds and returns the tiles per second."""


def first_fold(path: Path, data: Path, config: Config, tiles: Tiles) -> FoldData:
    """Create a run as `marsls train` does and return the data of its first fold.

    Args:
        path: Folder of the run, which becomes that of scratch files.
        data: Data folder.
        config: The configuration.
        tiles: Its decoded tiles.

    Example:
        >>> fold = first_fold(Path("scratch"), Path("data"), config, load_folder("data", config.data))  # doctest: +SKIP
    """
    from marsls_keras.training.fold_data import FoldData
    from marsls_keras.training.train_fold import fold_tiles

    splits = make_splits(tiles, config.data, config.training.seed)
    pool = {tile["id"] for tile in splits.tiles}
    used = tiles.subset([i for i, ref in enumerate(tiles.refs) if ref.id in pool])
    run = Run.create(path, config, splits, fingerprint(used, data))
    train, held_out = fold_tiles(run, 0, used)
    return FoldData(run, 0, train, held_out, Normalizer.fit(train.images, config.data, train.bands, train.valid))


def measure_network(fold: FoldData, seconds: float) -> dict[str, Any]:
    """Measure the training and inference steps of a fold's network, its latency and its peak memory.

    Args:
        fold: Configuration, tiles and folder, from `first_fold`.
        seconds: How long each speed is measured.

    Returns:
        "trainable" and "parameters"; "flops" of one tile, None if unknown; "training" on one and the same batch,
        "training_with_data" with the share of time that the device waits for it, "inference", all in tiles per
        second; "latency", the median seconds for one tile alone, as an array on the device, over 100 predictions after
        a warm-up; "memory" at its peak until then, in GiB.

    Example:
        >>> measure_network(first_fold(folder, data, config, tiles), 8)["latency"]  # doctest: +SKIP
        0.021
    """
    from marsls_keras.signals import Signals
    from marsls_keras.training.attempt import Attempt
    from marsls_keras.training.callbacks.progress import ProgressDisplay
    from marsls_keras.training.recovery import Recovery

    config, area = fold.run.config, area_of(fold)
    recovery = Recovery(config.training.batch_size, config.training.accumulate)
    attempt = Attempt(fold, recovery, None, 1, Signals(), ProgressDisplay(fold.run.name, 1, fold.run.path / "log.txt"))
    model = attempt.build()
    batch = _on_device(next(iter(attempt.batches.dataset())))
    tiles = fold.inputs[np.arange(config.inference.batch_size) % len(fold.inputs)]
    (inputs,) = _on_device((fold.normalizer.assemble(tiles),))
    shapes = {"training": tuple(batch[0].shape), "inference": tuple(inputs.shape)}
    steps = {"training": lambda: model.train_on_batch(*batch), "inference": lambda: model.predict_on_batch(inputs)}
    logger.info("Compiling.")
    (first,) = timed(steps["training"], 0)
    result: dict[str, Any] = {
        "trainable": sum(int(np.prod(v.shape)) for v in model.trainable_variables),
        "parameters": model.count_params(),
        "flops": count_flops(model, *inputs.shape[1:3]),
    }
    for what, step in steps.items():
        logger.info(f"Measuring {what}.")
        turn = partial(_steps, step, tiles_in(shapes[what], area))
        result[what] = {"batch": list(shapes[what]), **throughput(turn, seconds)}
    result["training"]["first_step_seconds"] = first
    logger.info("Measuring the latency.")
    one = inputs[:1]
    result["latency"] = latency(lambda: model.predict_on_batch(one))
    logger.info("Measuring training with its data.")
    # One warm-up step for each window size, since each is compiled on its own.
    result["training_with_data"] = train_for(
        model, attempt.batches.dataset().repeat(), area, len(config.data.window_sizes), seconds
    )
    result["memory"] = peak_memory()
    return result


def latency(step: Callable[[], Any]) -> float:
    """Return the median seconds that a step takes, over 100 repetitions after ten that do not count.

    Example:
        >>> latency(lambda: None) < 0.1
        True
    """
    for _ in range(_WARM_UP):
        step()
    return statistics.median(_time_of(step) for _ in range(_LATENCIES))


def _time_of(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def train_for(
    model: keras.Model, batches: tf.data.Dataset, area: int, warm_up: int, seconds: float
) -> dict[str, float]:
    """Train a compiled model and measure its speed and the share of time spent waiting for batches.

    Returns:
        "tiles_per_second", of tiles of this area, and "wait_share", the share of the time that was spent waiting for
        the next batch.

    Example:
        >>> train_for(model, batches.repeat(), area=128 * 128, warm_up=1, seconds=8)["wait_share"]  # doctest: +SKIP
        0.004
    """
    iterator = iter(batches)
    for _ in range(warm_up):
        model.train_on_batch(*_on_device(next(iterator)))
    waited = tiles = 0.0
    start = now = time.perf_counter()
    while now < start + seconds:
        batch = next(iterator)
        waited += time.perf_counter() - now
        model.train_on_batch(*_on_device(batch))
        tiles += tiles_in(batch[0].shape, area)
        now = time.perf_counter()
    return {"tiles_per_second": tiles / (now - start), "wait_share": waited / (now - start)}


def _on_device(batch: tuple[tf.Tensor, ...]) -> tuple[Any, ...]:
    return tuple(keras.ops.convert_to_tensor(part) for part in batch)


def area_of(fold: FoldData) -> int:
    """Return the area of a fold's tiles in pixels.

    Example:
        >>> area_of(fold)  # doctest: +SKIP
        16384
    """
    _, height, width, _ = fold.inputs.shape
    return height * width


def tiles_in(shape: tuple[int, ...], area: int) -> float:
    """Return the number of pixels of a batch (B, H, W, C), divided by the area of a tile in pixels.

    Example:
        >>> tiles_in((4, 64, 64, 7), 128 * 128)
        1.0
    """
    number, height, width, _ = shape
    return number * height * width / area


def timed(step: Callable[[], Any], seconds: float) -> list[float]:
    """Repeat a step for a given time, at least once, and return the seconds that each repetition took.

    Example:
        >>> len(timed(lambda: None, 0))
        1
    """
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        taken.append(_time_of(step))
    return taken


def _steps(step: Callable[[], Any], number: float, seconds: float) -> float:
    """Repeat a step on `number` tiles and return the tiles per second, from the median duration."""
    return number / statistics.median(timed(step, seconds))


def throughput(turn: Turn, seconds: float) -> dict[str, float]:
    """Measure a speed several times after a warm-up and return median and extremes.

    Returns:
        "tiles_per_second", the median of the turns, "slowest" and "fastest".

    Example:
        >>> throughput(lambda seconds: 100.0, 8)
        {'tiles_per_second': 100.0, 'slowest': 100.0, 'fastest': 100.0}
    """
    _, *speeds = (turn(seconds / _TURNS) for _ in range(_TURNS + 1))
    return {"tiles_per_second": statistics.median(speeds), "slowest": min(speeds), "fastest": max(speeds)}
