"""Measure the peak memory of `marsls train` per byte of decoded images, without TensorFlow's own memory.

Two whole trainings of one epoch, with a tiny U-Net and images in memory, differ only in the number of tiles.
TensorFlow's own memory is the same in both, so the difference of their peaks (VmHWM) over that of their images' bytes
is what training itself holds.

    python tests/benchmarks/training_memory.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SIZE = 128
"""Side of the tiles, in pixels, of seven bands in float32."""

_RECIPE = """\
model: {options: {base_filters: 2, depth: 1}}
data: {cache: memory, folds: 5}
training: {epochs: 1, batch_size: 8, warmup_epochs: 0}
inference: {batch_size: 8}
"""

_MEASURED = """\
import sys
from pathlib import Path
from competition.cli import main
code = main(sys.argv[1:])
status = Path("/proc/self/status").read_text().splitlines()
print("VmHWM", next(line.split()[1] for line in status if line.startswith("VmHWM")))
sys.exit(code)
"""


def image_bytes(tiles: int) -> int:
    """Return the size of the images of `tiles` tiles, in bytes."""
    return tiles * SIZE * SIZE * 7 * 4


def peak(tiles: int, folder: Path) -> int:
    """Return the peak resident memory of a training on synthetic tiles, in bytes.

    Args:
        tiles: Number of tiles.
        folder: An empty folder, for the tiles and the run.
    """
    from marsls_keras.data.synthetic.mars import write_dataset

    write_dataset(folder / "data", "mmls_v2", train=tiles - 10, val=10, test=1, size=SIZE)
    (folder / "tiny.yaml").write_text(_RECIPE)
    words = [
        "train",
        "--config",
        folder / "tiny.yaml",
        "--data",
        folder / "data",
        "--runs",
        folder / "runs",
        "--fold",
        "0",
    ]
    done = subprocess.run([sys.executable, "-c", _MEASURED, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return int(done.stdout.split("VmHWM")[1].split()[0]) << 10


def slope(numbers: tuple[int, int]) -> dict[str, float]:
    """Return the peak memory of two trainings in MiB, and the ratio of their differences in memory and image bytes.

    Args:
        numbers: How many tiles each has.
    """
    peaks = []
    for number in numbers:
        with tempfile.TemporaryDirectory() as folder:
            peaks.append(peak(number, Path(folder)))
    small, large = map(image_bytes, numbers)
    return {
        **{f"peak of {n} tiles, MiB": round(p / 2**20) for n, p in zip(numbers, peaks, strict=True)},
        "slope": (peaks[1] - peaks[0]) / (large - small),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, nargs=2, default=(200, 600), help="Numbers of tiles of the two trainings.")
    print(json.dumps(slope(tuple(parser.parse_args().tiles)), indent=2))
