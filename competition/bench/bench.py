"""Measure the throughput of decoding, data pipeline, training and inference on this machine."""

from __future__ import annotations

import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from competition.console import table
from competition.recipe_parts import require_parts
from marsls_keras.backend import import_backend
from marsls_keras.config import PRESETS, Augmentation, Config, load_config
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.fingerprint import fingerprint
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.load_folder import load_folder
from marsls_keras.data.normalization import Normalizer
from marsls_keras.data.pipeline.window_sampling import sampling_note, window_sides
from marsls_keras.data.splits import make_splits
from marsls_keras.data.synthetic.mars import write_dataset
from marsls_keras.errors import InputError
from marsls_keras.lazy_imports import keras, tf
from marsls_keras.models import is_depthwise, require_size
from marsls_keras.runs.run import Run
from marsls_keras.runtime import peak_memory, prepare

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from marsls_keras.training.fold_data import FoldData

_TURNS = 5
"""Number of measurements of each speed; the median is reported, since timings are noisy."""

Turn = Callable[[float], float]
"""Function that works for about the given number of seconds and returns the tiles per second."""


def bench(config: str, settings: list[str], data: Path | None, seconds: float) -> dict[str, Any]:
    """Measure the throughput of a recipe on this machine.

    The measured functions are those that training and inference use. A tile is what the data folder holds; windows of
    other sizes count by their pixels. Only the first fold's training tiles are used.

    Args:
        config: Name of a recipe or path of a YAML file.
        settings: Changes of it, "section.key=value".
        data: Data folder; generated tiles if None.
        seconds: How long each figure is measured.

    Returns:
        "recipe", "environment" (as a fold's environment.json), "load" (of the minute before) and "trainable"
        parameters; "decode" of all tiles out of the page cache; "training" on one and the same batch,
        "training_with_data" with the share of time that the device waits for it, "inference"; "memory" at its peak
        until then, in GiB; "pipeline" by preset, for "windows", and for the "recipe" if it has another augmentation.
        Speeds are in tiles per second: "tiles_per_second" is the median of several turns, "slowest" and "fastest" are
        the extremes.

    Raises:
        InputError: If recipe or data are wrong or missing.

    Example:
        >>> bench("unet", ["training.batch_size=8"], None, 8)["training"]["tiles_per_second"]  # doctest: +SKIP
        36.6
    """
    if not 0 < seconds < float("inf"):
        raise InputError(f"--seconds {seconds:g}: expected more than 0.")
    recipe, parsed = load_config(config, settings)
    require_parts(parsed)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="marsls-bench-") as scratch:
        if data is None:
            logger.info("Generating tiles.")
            data = _generated(Path(scratch) / "data")
        logger.info(f"Decoding {data}.")
        tiles, decode = _decode(data, parsed)
        sides = window_sides(parsed.data, tiles.refs, *tiles.images.shape[1:3])
        if note := sampling_note(parsed.data, sides):
            logger.info(note)
        for height, width in (tiles.images.shape[1:3], *((side, side) for side in sides)):
            require_size(parsed.model.name, parsed.model.options, height, width)
        import_backend()
        environment = prepare(parsed.training, depthwise=is_depthwise(parsed.model.name, parsed.model.options))
        result: dict[str, Any] = {"recipe": recipe, "load": load, "environment": environment, "decode": decode}
        fold = _fold(Path(scratch) / recipe, data, parsed, tiles)
        result |= _network(fold, seconds)
        result["pipeline"] = {}
        for name, changed in _pipelines(parsed).items():
            altered = replace(fold, run=replace(fold.run, config=changed))
            if sampling_note(changed.data, altered.window_sides):
                continue  # these tiles have no windows across their borders
            logger.info(f"Measuring the pipeline: {name}.")
            batches = altered.batches(parsed.training.batch_size)
            turn = partial(_batches, iter(batches.dataset().repeat()), _area(fold))
            result["pipeline"][name] = throughput(turn, seconds)
    return result


def tables(result: dict[str, Any]) -> list[str | Table]:
    """Format the result of `bench` as a table and sentences.

    Example:
        >>> from competition.console import show
        >>> show(*tables(bench("unet", [], None, 8)))  # doctest: +SKIP
    """
    environment, decode, training = result["environment"], result["decode"], result["training"]
    loop = result["training_with_data"]

    def row(what: str, speed: dict[str, Any], note: str = "") -> list[str]:
        extremes = f"{speed['slowest']:,.1f}–{speed['fastest']:,.1f}" if "slowest" in speed else ""
        return [what, f"{speed['tiles_per_second']:,.1f}", extremes, note]

    def shape(what: str) -> str:
        return " × ".join(map(str, result[what]["batch"]))

    cache = "cold" if decode["cold"] else "cache not dropped"
    rows = [row("decode, with all checks", decode, f"{decode['tiles']} tiles in {decode['seconds']:.2f} s, {cache}")]
    for what in ("training", "inference"):
        first = f"; first step {training['first_step_seconds']:.1f} s" if what == "training" else ""
        rows.append(row(f"{what} step", result[what], shape(what) + first))
    rows.append(row("training with its data", loop, f"waits for data {loop['wait_share']:.1%} of the time"))
    rows += [row(f"pipeline, {name}", speed) for name, speed in result["pipeline"].items()]
    memory = ", ".join(f"{place} {gibibytes:.2f} GiB" for place, gibibytes in result["memory"].items())
    cores = environment["cpu_count"]
    busy = (
        f"The machine was busy when this began (load {result['load']:.1f} on {cores} cores): repeat it on an idle one."
    )
    return [
        table(f"{result['recipe']} on this machine", ["", "tiles/s", "slowest–fastest", ""], rows),
        f"{result['trainable']:,} trainable parameters; "
        f"{environment['backend']} on {', '.join(environment['devices'])}, {cores} CPU cores; "
        f"{environment['precision']}, XLA {'on' if environment['xla'] else 'off'}; memory: {memory}.",
        *([busy] if result["load"] > cores / 2 else []),
    ]


def _generated(root: Path) -> Path:
    """Write synthetic tiles to a folder, flush them to disk, and return the folder.

    Only flushed files can be dropped from the page cache.
    """
    write_dataset(root, train=80, val=16, test=0)
    for path in root.rglob("*.tif"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    return root


def _decode(root: Path, config: Config) -> tuple[Tiles, dict[str, Any]]:
    """Decode all tiles of a folder and return them with the time taken.

    The files are dropped from the page cache first, where the system can do that ("cold").
    """
    dataset = Dataset.open(root, release=config.data.release, conflicts=config.data.conflicts)
    cold = hasattr(os, "posix_fadvise")
    for path in (path for tile in dataset.tiles for path in (tile.image, tile.mask) if path and cold):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    tiles = load_folder(root, config.data)
    seconds = time.perf_counter() - start
    return tiles, {"tiles": len(tiles), "seconds": seconds, "tiles_per_second": len(tiles) / seconds, "cold": cold}


def _fold(path: Path, data: Path, config: Config, tiles: Tiles) -> FoldData:
    """Create a run as `marsls train` does and return the data of its first fold."""
    from marsls_keras.training.fold_data import FoldData
    from marsls_keras.training.train_fold import fold_tiles

    splits = make_splits(tiles, config.data, config.training.seed)
    pool = {tile["id"] for tile in splits.tiles}
    used = tiles.subset([i for i, ref in enumerate(tiles.refs) if ref.id in pool])
    run = Run.create(path, config, splits, fingerprint(used, data))
    train, held_out = fold_tiles(run, 0, used)
    return FoldData(run, 0, train, held_out, Normalizer.fit(train.images, config.data, train.bands, train.valid))


def _pipelines(config: Config) -> dict[str, Config]:
    """Return the configurations whose pipelines are measured, by name.

    These are the recipe with each augmentation preset, with its own augmentation if that is no preset ("recipe"), and
    with window sampling.
    """
    presets = {name: Augmentation.model_validate({"preset": name}) for name in PRESETS}
    if config.augmentation not in presets.values():
        presets["recipe"] = config.augmentation

    def changed(augmentation: Augmentation, sampling: str) -> Config:
        data = config.data.model_copy(update={"sampling": sampling})
        return config.model_copy(update={"augmentation": augmentation, "data": data})

    own = next(name for name, augmentation in presets.items() if augmentation == config.augmentation)
    return {
        **{name: changed(augmentation, "tiles") for name, augmentation in presets.items()},
        f"windows, {own}": changed(config.augmentation, "windows"),
    }


def _network(fold: FoldData, seconds: float) -> dict[str, Any]:
    """Measure the training and inference steps of a fold's network, and its peak memory."""
    from marsls_keras.signals import Signals
    from marsls_keras.training.attempt import Attempt
    from marsls_keras.training.callbacks.progress import ProgressDisplay
    from marsls_keras.training.recovery import Recovery

    config, area = fold.run.config, _area(fold)
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
    result: dict[str, Any] = {"trainable": sum(int(np.prod(v.shape)) for v in model.trainable_variables)}
    for what, step in steps.items():
        logger.info(f"Measuring {what}.")
        turn = partial(_steps, step, tiles_in(shapes[what], area))
        result[what] = {"batch": list(shapes[what]), **throughput(turn, seconds)}
    result["training"]["first_step_seconds"] = first
    logger.info("Measuring training with its data.")
    # One warm-up step for each window size, since each is compiled on its own.
    result["training_with_data"] = train_for(
        model, attempt.batches.dataset().repeat(), area, len(config.data.window_sizes), seconds
    )
    result["memory"] = peak_memory()
    return result


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


def _area(fold: FoldData) -> int:
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
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return taken


def _steps(step: Callable[[], Any], number: float, seconds: float) -> float:
    """Repeat a step on `number` tiles and return the tiles per second, from the median duration."""
    return number / statistics.median(timed(step, seconds))


def _batches(batches: Any, area: int, seconds: float) -> float:
    """Read batches for a given time and return the tiles per second."""
    pixels, start = 0.0, time.perf_counter()
    while (taken := time.perf_counter() - start) < seconds:
        pixels += tiles_in(next(batches)[0].shape, area)
    return pixels / taken


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
