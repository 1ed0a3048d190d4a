"""Do one job of a benchmark in its own process, so that its memory is its own and is freed when it ends."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from competition.search.request import read_request
from marsls_keras.config import read_config
from marsls_keras.counts import Counts, confusion
from marsls_keras.files import read_json, write_json
from marsls_keras.runs.run import Run

SECONDS = 2.0
"""How long each speed is measured; the latency takes 110 predictions."""


@dataclass(frozen=True)
class StepRequest:
    """Arguments of a job's process, which reads them as one line of JSON from standard input.

    Attributes:
        kind: "fold": train a fold and count its predictions. "speed": measure the network.
        folder: Folder of the run, which holds recipe.yaml.
        data: Data folder.
        fold: The fold.
        predictions: View sets and thresholds, as "flips:0.5".
        result: File that the result is written to.

    Example:
        >>> json.loads(StepRequest("fold", "b/unet-1", "data", 0, ["identity:0.5"], "b/unet-1/0.json").line())["fold"]
        0
    """

    kind: str
    folder: str
    data: str
    fold: int
    predictions: list[str]
    result: str

    def line(self) -> bytes:
        """Return the request as a line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"


def run_step(train: Callable[..., Any]) -> int:
    """Do the job that standard input describes, write its result, and return the exit code 0.

    Args:
        train: Function that trains a fold; its keyword arguments are fields of
            `competition.commands.train.TrainRequest`.

    Raises:
        InputError: If the configuration or the data are refused.
        RunError: If training fails.
        Interrupted: If a signal asked training to stop.

    Example:
        >>> command = [*PROGRAM, "benchmark-step"]  # doctest: +SKIP
        >>> subprocess.run(command, input=request.line()).returncode  # doctest: +SKIP
        0
    """
    request = read_request(StepRequest, "benchmark")
    do = _measure if request.kind == "speed" else _train
    write_json(request.result, do(request, train))
    return 0


def _measure(request: StepRequest, _: Callable[..., Any]) -> dict[str, Any]:
    """Measure a network on the tiles of the first fold."""
    from competition.bench.network import first_fold, measure_network
    from marsls_keras.data.load_folder import load_folder
    from marsls_keras.models import is_depthwise
    from marsls_keras.runtime import prepare

    config, data = read_config(Path(request.folder) / "recipe.yaml"), Path(request.data)
    environment = prepare(config.training, depthwise=is_depthwise(config.model.name, config.model.options))
    with tempfile.TemporaryDirectory(prefix="marsls-benchmark-") as scratch:
        fold = first_fold(Path(scratch) / "run", data, config, load_folder(data, config.data))
        return {"environment": environment, **measure_network(fold, SECONDS)}


def _train(request: StepRequest, train: Callable[..., Any]) -> dict[str, Any]:
    """Train a fold, unless that is done, and count the predictions of the tiles that it holds out."""
    from marsls_keras.runtime import peak_memory

    folder = Path(request.folder)
    place = folder / f"fold_{request.fold}"
    memory_file = place / "memory.json"
    if not _finished(folder, request.fold):
        train(
            config=str(folder / "recipe.yaml"),
            data=Path(request.data),
            fold=str(request.fold),
            runs=folder.parent,
            name=folder.name,
            resume=(place / "config.yaml").exists(),  # a fold that begins reads its pretrained weights only without
        )
        write_json(memory_file, peak_memory())
    run = Run.open(folder)
    return {
        "tiles": count(run, request.fold, Path(request.data), request.predictions),
        "seconds": run.metrics(request.fold)["seconds"],
        "memory": read_json(memory_file) if memory_file.exists() else {},
    }


def _finished(folder: Path, fold: int) -> bool:
    return (folder / "splits.json").exists() and Run.open(folder).fold(fold).finished


def count(run: Run, fold: int, data: Path, predictions: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """Count the pixels of the tiles that a fold holds out, for each way to predict them.

    Args:
        run: The run.
        fold: A finished fold.
        data: Data folder.
        predictions: View sets and thresholds, as "flips:0.5".

    Returns:
        For each prediction the columns "tp", "fp", "fn", "tn", one number a tile, and "block", the tile's block.

    Example:
        >>> count(Run.open("runs/unet"), 0, Path("data"), ["identity:0.5"])["identity:0.5"]["tp"][:2]  # doctest: +SKIP
        [4102, 0]
    """
    from marsls_keras.tuning.out_of_fold import collect, pool_tiles
    from marsls_keras.view_sets import views_of

    sets = {name: name.rpartition(":")[0] for name in predictions}
    views = list(dict.fromkeys(view for name in sets.values() for view in views_of(name)))
    found = collect([run], pool_tiles(run, data), views, [fold], isolated=run.splits.cv == "geographic")
    counted = {}
    for name, view_set in sets.items():
        mask = found.probability(view_set) >= np.float32(name.rpartition(":")[2])
        counts: Counts = confusion(found.tiles.masks, mask, axis=(1, 2))
        columns = {field: np.asarray(getattr(counts, field)).tolist() for field in ("tp", "fp", "fn", "tn")}
        counted[name] = {"block": found.blocks.tolist(), **columns}
    return counted
