"""Time marsls map against the plain loop: a window at a time with rasterio and model.predict, at equal overlap.

    python tests/benchmarks/map_raster.py RUN --sides 512,1024,2048 --turns 3

Prints for each side of a raster of noise: seconds and Mpixel/s of both, in turns in one process, the share of the map's
time outside the network, and the memory of the process at its peak. `--constant` maps with a network of one weight,
which measures memory and the cost outside the network alone, without the plain loop.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np


def write_noise(path: Path, side: int) -> Path:
    """Write a raster of noise with seven bands, row of blocks by row of blocks."""
    import rasterio
    from rasterio.transform import from_origin
    from rasterio.windows import Window

    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "height": side, "width": side, "count": 7, "dtype": "float32", "tiled": True}
    block = rng.uniform(0.1, 0.9, (7, 512, 512)).astype(np.float32)
    place = from_origin(0, 0, 232, 232)
    with rasterio.open(path, "w", **profile, crs="IAU_2015:49910", transform=place, bigtiff="if_safer") as file:
        for top in range(0, side, 512):
            for left in range(0, side, 512):
                height, width = min(512, side - top), min(512, side - left)
                file.write(block[:, :height, :width], window=Window(left, top, width, height))
    return path


def plain_loop(raster: Path, member: Any, window: int, stride: int) -> np.ndarray:
    """Map a raster as people write it: read a window, normalise, predict, add."""
    import rasterio
    from rasterio.windows import Window

    mean, std = (np.float32(values) for values in (member.normalizer.mean, member.normalizer.std))
    with rasterio.open(raster) as file:
        total, count = np.zeros((2, file.height, file.width), np.float32)
        tops, lefts = (sorted({*range(0, size - window, stride), size - window}) for size in (file.height, file.width))
        for top in tops:
            for left in lefts:
                image = np.moveaxis(file.read(window=Window(left, top, window, window)), 0, -1)
                logits = member.model.predict(((image - mean) / std)[None], verbose=0)[0, ..., 0]
                total[top : top + window, left : left + window] += 1 / (1 + np.exp(-logits))
                count[top : top + window, left : left + window] += 1
    return total / count


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run whose first fold is used, such as runs/default")
    parser.add_argument("--sides", default="512,1024,2048")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--constant", action="store_true")
    given = parser.parse_args()

    from marsls_keras.backend import import_backend
    from marsls_keras.inference.decision import Decision
    from marsls_keras.mapping import map_raster as module
    from marsls_keras.mapping import predict_box
    from marsls_keras.mapping.shards import ShardComputer
    from marsls_keras.runtime import peak_memory

    import_backend()
    run, view = given.run, Decision(views="identity")
    module.decision_of = lambda *_: view  # one view of windows of a tile, as the plain loop has it
    network = [0.0]
    inside = predict_box.predict_inputs

    def timed(*arguments: Any) -> Any:
        begin = time.perf_counter()
        found = inside(*arguments)
        network[0] += time.perf_counter() - begin
        return found

    predict_box.predict_inputs = timed
    if given.constant:
        predict_box.predict_inputs = lambda member, inputs, *_: SimpleNamespace(probability=inputs[..., 0] * 0 + 0.25)
    with tempfile.TemporaryDirectory() as folder:
        for side in map(int, given.sides.split(",")):
            raster = write_noise(Path(folder) / f"{side}.tif", side)
            ours, theirs, shares = [], [], []
            for turn in range(given.turns + (not given.constant)):  # the first warms up
                network[0], begin = 0.0, time.perf_counter()
                out = Path(folder) / f"{side}_{turn}"
                request = module.MapRequest(
                    str(raster), out, names=[run.name], runs=run.parent, folds=[0], polygons=False
                )
                found = module.map_raster(request)
                ours.append(time.perf_counter() - begin)
                shares.append(1 - network[0] / ours[-1])
                if not given.constant:
                    member = ShardComputer.open(out, run.parent, str(raster)).ensemble.members[0]
                    begin = time.perf_counter()
                    plain_loop(raster, member, found.manifest.window, found.manifest.stride)
                    theirs.append(time.perf_counter() - begin)
            kept = slice(0 if given.constant else 1, None)
            seconds = statistics.median(ours[kept])
            line = f"{side} x {side}: map {seconds:.1f} s, {side**2 / 1e6 / seconds:.3f} Mpixel/s"
            if theirs:
                ratio = statistics.median(b / a for a, b in zip(ours[kept], theirs[kept], strict=True))
                line += f", {statistics.median(shares[kept]):.0%} outside the network"
                line += f"; plain loop {statistics.median(theirs[kept]):.1f} s, {ratio:.2f} times as long"
            print(f"{line}; memory {peak_memory()['host']:.2f} GiB", flush=True)


if __name__ == "__main__":
    main()
