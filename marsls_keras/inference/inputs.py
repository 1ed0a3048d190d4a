"""What runs are given to predict: images with what windows see around them, and the decision that the masks follow."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from marsls_keras.data.decoded.checks import require_same_family
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.data.load_folder import load_with_neighbours
from marsls_keras.errors import InputError
from marsls_keras.inference.prediction_inputs import PredictionInputs
from marsls_keras.inference.purpose import Purpose
from marsls_keras.inference.sliding_window import cells_seen, stitchable
from marsls_keras.runs.run import Run

logger = logging.getLogger(__name__)


def bands_of(runs: Sequence[Run]) -> list[str]:
    """Return the bands that runs ask for, as in their configurations, each once."""
    return list(dict.fromkeys(band for run in runs for band in run.config.data.bands))


def purpose_of(images: Dataset, run: Run) -> Purpose:
    """Return what a decision on images is for: "published" if half of them or more have labelled neighbours in a run's data, else "region".

    Args:
        images: The images, a plain folder.
        run: The run.
    """
    root = run.data_root
    try:
        found = images.located_in(
            Dataset.open(root, release=run.config.data.release, conflicts=run.config.data.conflicts)
        )
    except InputError:
        logger.info(
            f"The run's data are no longer in {root}, or damaged, so nobody can tell where these images lie: taken for a new region."
        )
        return Purpose.REGION
    labelled = {(tile.raster, *tile.cell) for tile in found.tiles if tile.cell is not None and tile.labelled}
    near = [
        tile.cell is not None
        and any(
            (tile.raster, tile.cell[0] + i, tile.cell[1] + j) in labelled
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
            if i or j
        )
        for tile in found.tiles[: len(images.tiles)]
    ]
    if 2 * sum(near) >= len(near):
        return Purpose.PUBLISHED
    logger.info(
        f"These images lie outside the pictures of the labelled tiles in {root}: the decision is the one for a new region."
    )
    return Purpose.REGION


def read_inputs(
    dataset: Dataset, chosen: Sequence[TileRef], runs: Sequence[Run], release: str, sight: int, cache: str, source: str
) -> PredictionInputs:
    """Read tiles that runs can predict, and the tiles around them that windows see.

    Args:
        dataset: Where they and their neighbours are.
        chosen: The tiles to predict.
        runs: The runs.
        release: Their release, or "auto".
        sight: How many cells away windows see (`marsls_keras.inference.sliding_window.cells_seen`).
        cache: Where decoded tiles are kept, as `data.cache`.
        source: What they are, for messages, such as the folder.

    Raises:
        InputError: If a file is damaged, or the tiles are of another kind of release than those of a run.
    """
    tiles = load_with_neighbours(dataset, chosen, bands_of(runs), release, runs[0].config.data.resize, cache, sight)
    for run in runs:
        require_same_family(run.fingerprint["release"], tiles.release, source)
    return PredictionInputs(tiles, len(chosen))


def read_images(images: Path, release: str, runs: Sequence[Run], view_set: str) -> PredictionInputs:
    """Read a folder of image tiles that these runs can predict, and the tiles around that windows of a set of views see.

    Raises:
        InputError: If the folder is missing or empty, a file is damaged, names clash, or the tiles are of another kind
            of release.
    """
    folder, data = Dataset.from_images(images), runs[0].config.data
    sight = cells_seen(view_set, folder.tiles[0], release, data.resize)
    dataset = surrounded(folder, runs[0]) if sight else folder
    chosen = dataset.tiles[: len(folder.tiles)]
    return read_inputs(dataset, chosen, runs, release, sight, data.cache, str(images))


def surrounded(folder: Dataset, run: Run) -> Dataset:
    """Return a folder of images and, after them, the tiles of a run's data known to lie in the same picture; say whether any do."""
    number, root = len(folder.tiles), run.data_root
    if not stitchable(folder.tiles):
        return folder
    try:
        found = folder.located_in(
            Dataset.open(root, release=run.config.data.release, conflicts=run.config.data.conflicts)
        )
    except InputError:  # the run's data are gone or damaged, and can be done without
        found = folder
    if len(found.tiles) > number:
        logger.info(
            f"These images lie in the picture that the tiles in {root} were cut from: windows see those around them, too."
        )
        return found
    logger.info(f"Windows see these {number} images only: no neighbours of theirs are known in {root}.")
    return folder
