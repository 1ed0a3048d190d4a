"""Fixtures of all tests: the real data if present, and small data folders written without the package's own code."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import tifffile

REAL_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def nothing_deterministic_stays() -> Iterator[None]:
    """Reset after each test the process-wide settings of a deterministic training."""
    yield
    if "tensorflow" in sys.modules:
        from tensorflow.python.framework.config import disable_op_determinism, is_op_determinism_enabled

        if is_op_determinism_enabled():
            disable_op_determinism()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder with tiles of MMLS (mmls_v1/, challenge_layout/), or skip the test if it is missing."""
    if not (REAL_DATA / "mmls_v1").is_dir():
        pytest.skip(f"the real tiles are not at {REAL_DATA}")
    return REAL_DATA


@pytest.fixture(scope="session")
def write_image() -> Callable[..., Path]:
    """Return a function that writes an image (H, W, 7) in the form of the public MMLSv2: one page, LZW."""

    def write(path: Path, image: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"photometric": "minisblack", "planarconfig": "contig", "compression": "lzw", "metadata": None}
        tifffile.imwrite(path, np.asarray(image, np.float32), **options)
        return path

    return write


@pytest.fixture(scope="session")
def write_mask() -> Callable[..., Path]:
    """Return a function that writes a mask (H, W) of {0, 1} as uint8, LZW."""

    def write(path: Path, mask: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.asarray(mask, np.uint8), photometric="minisblack", compression="lzw", metadata=None)
        return path

    return write


@pytest.fixture
def data_root(tmp_path: Path, write_image: Callable[..., Path], write_mask: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function that writes a data folder in mmls_v2 form and returns it.

    Training tiles fill a grid of two columns from row 0 on, validation and test tiles the rows below. A tile is noise
    in [0, 1] with a rectangle of landslide, brighter in the slope band (4) and darker in the thermal band (5), so that
    even a small network can learn it."""

    def make(
        root: Path | None = None, train: int = 8, val: int = 2, test: int = 2, size: int = 32, seed: int = 0
    ) -> Path:
        root = tmp_path / "data" if root is None else root
        rng = np.random.default_rng(seed)
        row = 0
        for split, number in (("train", train), ("val", val), ("test", test)):
            for i in range(number):
                name = f"col{i % 2:05d}_row{row + i // 2:05d}.tif"
                image = rng.uniform(0.2, 0.6, (size, size, 7))
                mask = np.zeros((size, size), bool)
                top, left = rng.integers(0, size // 2, 2)
                height, width = rng.integers(size // 4, size // 2, 2)
                mask[top : top + height, left : left + width] = True
                image[mask, 4] += 0.4
                image[mask, 5] -= 0.2
                write_image(root / split / "images" / name, image)
                write_mask(root / split / "masks" / name, mask)
            row += -(-number // 2)
        return root

    return make


TINY_RECIPE = """\
model: {options: {base_filters: 4, depth: 1}}
data: {folds: 2}
training:
  {epochs: 2, batch_size: 4, warmup_epochs: 0.5, learning_rate: 0.06, ema_decay: 0.5, deterministic: true, seed: 4}
inference: {batch_size: 4}
"""


@dataclass(frozen=True)
class TinyRun:
    """A run with two finished folds that all tests share; tests that write into it use a copy.

    Attributes:
        recipe: Its configuration file.
        data: Its data folder: 16 training, 4 validation and 4 test tiles of 32 x 32, generated as mmls_v2.
        runs: Folder that holds the run, and nothing else.
        name: Its name.
        results: The metrics of both folds, as `train` returned them.
    """

    recipe: Path
    data: Path
    runs: Path
    name: str
    results: list[dict[str, Any]]

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.runs / self.name

    def copy(self, runs: Path) -> Path:
        """Copy the run into another folder of runs, and return that folder."""
        shutil.copytree(self.path, runs / self.name)
        return runs


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Return a run that was trained deterministically, so that a second training can be compared; see `TinyRun`."""
    from helpers.training import train_run
    from tensorflow.python.framework.config import disable_op_determinism

    from marsls_keras.data.synthetic.mars import write_dataset

    root = tmp_path_factory.mktemp("tiny")
    (root / "tiny.yaml").write_text(TINY_RECIPE)
    write_dataset(root / "data", "mmls_v2", train=16, val=4, test=4, size=32)
    try:
        _, results = train_run(root / "tiny.yaml", root / "data", root / "runs" / "tiny", folds=(0, 1))
    finally:
        disable_op_determinism()
    return TinyRun(root / "tiny.yaml", root / "data", root / "runs", "tiny", results)
