"""The shards of a map: compute and write them, and tell which are finished."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from marsls_keras.backend import import_backend
from marsls_keras.errors import InputError
from marsls_keras.files import atomic
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.inputs import bands_of
from marsls_keras.inference.member import load_member
from marsls_keras.mapping.canvas import Canvas, read_canvas
from marsls_keras.mapping.manifest import BLOCK, MANIFEST, Manifest
from marsls_keras.mapping.predict_box import Ensemble, predict_box
from marsls_keras.mapping.raster import Box, Raster
from marsls_keras.runs.names import run_folder
from marsls_keras.runs.run import Run

Advance = Callable[[int], None]

BANDS = ("probability", "variance", "entropy")
"""Bands of a shard; the last two only with uncertainty."""


def shard_path(out: Path, number: int) -> Path:
    """Return the path of a finished shard in the folder of a map.

    Example:
        >>> shard_path(Path("valles"), 12).as_posix()
        'valles/shards/000012.tif'
    """
    return out / "shards" / f"{number:06d}.tif"


def missing_shards(out: Path, manifest: Manifest) -> list[int]:
    """Return the numbers of the shards that are not finished.

    Example:
        >>> missing_shards(Path("valles"), Manifest.read(Path("valles/map.json")))  # doctest: +SKIP
        [7, 8]
    """
    folder = out / "shards"
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return [number for number in range(len(manifest.boxes)) if shard_path(out, number).name not in there]


@dataclass(frozen=True)
class ShardComputer:
    """Computes shards of a map; the networks are loaded with the first and kept.

    Attributes:
        out: Folder of the map, with its manifest.
        runs: Folder of the runs.
        raster: The raster.

    Example:
        >>> computer = ShardComputer.open(Path("valles"), Path("runs"), "valles.tif")  # doctest: +SKIP
        >>> computer.compute(0, following=1)  # doctest: +SKIP
    """

    out: Path
    runs: Path
    raster: Raster

    @classmethod
    def open(cls, out: Path, runs: Path, raster: str) -> ShardComputer:
        """Read the manifest and open the raster, which may lie elsewhere than on the machine that made the manifest.

        Raises:
            InputError: If one of them cannot be read.
        """
        record = Manifest.read(out / MANIFEST).raster
        return cls(out, runs, Raster.open(raster, record.release))

    @cached_property
    def manifest(self) -> Manifest:
        """Manifest of the map."""
        return Manifest.read(self.out / MANIFEST)

    @cached_property
    def opened(self) -> list[Run]:
        """The runs."""
        return [Run.open(run_folder(self.runs, name)) for name in self.manifest.members]

    @cached_property
    def ensemble(self) -> Ensemble:
        """The networks.

        Raises:
            InputError: If a fold has other weights than the manifest says.
        """
        import_backend()
        folds, members = self.manifest.folds, []
        for run in self.opened:
            if run.digest(folds) != self.manifest.members[run.name]:
                raise InputError(f"Run {run.path} has other weights than the map in {self.out} was begun with.")
            members += [load_member(run, fold) for fold in folds]
        return Ensemble(members, Decision(**self.manifest.decision))

    def compute(self, number: int, following: int | None = None, advance: Advance = lambda windows: None) -> None:
        """Compute a shard, write it under a temporary name and rename it.

        While it is predicted, a thread reads what the following one needs.

        Args:
            number: The shard.
            following: The shard that will be asked for next, if that is known.
            advance: Function that is called with the number of windows that were predicted or needed no prediction.

        Raises:
            InputError: If the raster cannot be read.
            RunError: If the shard cannot be written.
        """
        reading = self._ahead.pop(number, None) or self._reader.submit(self._canvas, number)
        self._ahead.clear()
        canvas = reading.result()
        if following is not None:
            self._ahead[following] = self._reader.submit(self._canvas, following)
        box = self.manifest.boxes[number]
        values = self._predict(canvas, box, advance)
        with atomic(shard_path(self.out, number)) as temporary:
            write_geotiff(temporary, values, self.raster, box)

    @cached_property
    def _ahead(self) -> dict[int, Future[Canvas]]:
        """What is being read, by shard."""
        return {}

    @cached_property
    def _reader(self) -> ThreadPoolExecutor:
        """The thread that reads; it has its own handle of the raster."""
        return ThreadPoolExecutor(1)

    def _canvas(self, number: int) -> Canvas:
        box = self.manifest.boxes[number]
        return read_canvas(self.raster, box, self.manifest.lattice, bands_of(self.opened))

    def _predict(self, canvas: Canvas, box: Box, advance: Advance) -> np.ndarray:
        manifest, predicted = self.manifest, 0

        def count(windows: int) -> None:
            nonlocal predicted
            predicted += windows
            advance(windows)

        if canvas.part(canvas.known, box).any():
            found = predict_box(self.ensemble, canvas, box, self.raster, manifest.lattice, manifest.uncertainty, count)
        else:  # without the networks, which need not be loaded for this
            found = np.full((3 if manifest.uncertainty else 1, box.height, box.width), np.nan, np.float32)
        advance(predictions(manifest, box) - predicted)
        return found


def predictions(manifest: Manifest, box: Box) -> int:
    """Return how many windows are predicted for a shard, over all members and views.

    Example:
        >>> manifest = Manifest.read(Path("valles/map.json"))  # doctest: +SKIP
        >>> sum(predictions(manifest, box) for box in manifest.boxes)  # doctest: +SKIP
        40460
    """
    from marsls_keras.view_sets import views_of

    members = sum(len(folds) for folds in manifest.members.values())
    return manifest.windows(box) * len(views_of(manifest.decision["views"])) * members


def write_geotiff(path: Path, values: np.ndarray, raster: Raster, box: Box) -> None:
    """Write values of a box of a raster as a compressed GeoTIFF in blocks, with the raster's place; NaN is no data.

    Args:
        path: File to write.
        values: float32 (bands, H, W).
        raster: The raster.
        box: The box.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> write_geotiff(Path("a.tif"), np.zeros((1, 4, 4), np.float32), raster, Box(0, 0, 4, 4))  # doctest: +SKIP
    """
    import rasterio
    from rasterio.transform import Affine

    options: dict[str, Any] = {"driver": "GTiff", "dtype": "float32", "nodata": float("nan"), "crs": raster.crs}
    options |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "predictor": 3}
    options |= {"zlevel": 1, "bigtiff": "if_safer"}
    number, height, width = values.shape
    place = raster.transform * Affine.translation(box.left, box.top)
    with rasterio.open(path, "w", height=height, width=width, count=number, transform=place, **options) as file:
        file.write(values)
        for i in range(number):
            file.set_band_description(i + 1, BANDS[i])
