"""Measure the throughput of decoding, data pipeline, training and inference on this machine."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from competition.bench.network import area_of, first_fold, measure_network, throughput, tiles_in
from competition.console import table
from competition.recipe_parts import require_parts
from marsls_keras.backend import import_backend
from marsls_keras.config import PRESETS, Augmentation, Config, load_config
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.load_folder import load_folder
from marsls_keras.data.pipeline.window_sampling import sampling_note, window_sides
from marsls_keras.data.synthetic.mars import write_dataset
from marsls_keras.errors import InputError
from marsls_keras.models import is_depthwise, require_size
from marsls_keras.runtime import prepare

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    pass


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
        "recipe", "environment" (as a fold's environment.json), "load" (of the minute before); "decode" of all tiles out
        of the page cache; parameters, speeds, latency and memory as `measure_network` returns them; "pipeline" by
        preset, for "windows", and for the "recipe" if it has another augmentation. Speeds are in tiles per second:
        "tiles_per_second" is the median of several turns, "slowest" and "fastest" are the extremes.

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
        fold = first_fold(Path(scratch) / recipe, data, parsed, tiles)
        result |= measure_network(fold, seconds)
        result["pipeline"] = {}
        for name, changed in _pipelines(parsed).items():
            altered = replace(fold, run=replace(fold.run, config=changed))
            if sampling_note(changed.data, altered.window_sides):
                continue  # these tiles have no windows across their borders
            logger.info(f"Measuring the pipeline: {name}.")
            batches = altered.batches(parsed.training.batch_size)
            turn = partial(_batches, iter(batches.dataset().repeat()), area_of(fold))
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
    flops = "" if result["flops"] is None else f"; {result['flops'] / 1e9:,.2f} GFLOPs"
    rows.append(
        row("one tile alone", {"tiles_per_second": 1 / result["latency"]}, f"{1000 * result['latency']:.1f} ms{flops}")
    )
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


def _batches(batches: Any, area: int, seconds: float) -> float:
    """Read batches for a given time and return the tiles per second."""
    pixels, start = 0.0, time.perf_counter()
    while (taken := time.perf_counter() - start) < seconds:
        pixels += tiles_in(next(batches)[0].shape, area)
    return pixels / taken
