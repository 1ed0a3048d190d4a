"""Read the tiles that runs predict, with their neighbours for windows, and infer the purpose of the prediction."""

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
    """Return the bands of the configurations of runs, each once, in order of appearance.

    Example:
        >>> bands_of([Run.open("runs/base")])  # doctest: +SKIP
        ['red', 'green', 'blue', 'dem']
    """
    return list(dict.fromkeys(band for run in runs for band in run.config.data.bands))


def purpose_of(images: Dataset, run: Run) -> Purpose:
    """Return the purpose of a decision on images: whether they lie among labelled tiles or in a new region.

    It is "published" if at least half of the images have labelled neighbours in the data of a run, else "region". A log
    message explains "region".

    Args:
        images: The images, a plain folder.
        run: The run.

    Example:
        >>> purpose_of(Dataset.from_images(Path("images")), Run.open("runs/base"))  # doctest: +SKIP
        <Purpose.REGION: 'region'>
    """
    root = run.data_root
    try:
        found = images.located_in(
            Dataset.open(root, release=run.config.data.release, conflicts=run.config.data.conflicts)
        )
    except InputError:
        logger.info(
            f"The run's data are no longer in {root}, or damaged, so nobody can tell where these images lie: "
            "taken for a new region."
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
        f"These images lie outside the pictures of the labelled tiles in {root}: "
        "the decision is the one for a new region."
    )
    return Purpose.REGION


def read_inputs(
    dataset: Dataset, chosen: Sequence[TileRef], runs: Sequence[Run], release: str, sight: int, cache: str, source: str
) -> PredictionInputs:
    """Read the tiles to predict and the tiles around them that windows see, with the bands that runs need.

    Args:
        dataset: Dataset of these tiles and their neighbours.
        chosen: The tiles to predict.
        runs: The runs.
        release: Release of the tiles, or "auto".
        sight: Number of grid cells that windows see beyond a tile (`marsls_keras.inference.sliding_window.cells_seen`).
        cache: Cache of decoded tiles, as `data.cache`.
        source: Name of the tiles in error messages, such as their folder.

    Raises:
        InputError: If a file is damaged, or the tiles are of another family of releases than those of a run.

    Example:
        >>> dataset = Dataset.open(Path("data"))  # doctest: +SKIP
        >>> read_inputs(dataset, dataset.tiles[:4], [run], "auto", 0, "memory", "data").number  # doctest: +SKIP
        4
    """
    tiles = load_with_neighbours(dataset, chosen, bands_of(runs), release, runs[0].config.data.resize, cache, sight)
    for run in runs:
        require_same_family(run.fingerprint["release"], tiles.release, source)
    return PredictionInputs(tiles, len(chosen))


def read_images(images: Path, release: str, runs: Sequence[Run], view_set: str) -> PredictionInputs:
    """Read a folder of image tiles to predict, and the tiles around them that windows of a set of views see.

    Args:
        images: The folder.
        release: Release of the images, or "auto".
        runs: Runs that will predict the images.
        view_set: Name of the set of views.

    Raises:
        InputError: If the folder is missing or empty, a file is damaged, names clash, or the tiles are of another
            family of releases than those of a run.

    Example:
        >>> read_images(Path("images"), "auto", [Run.open("runs/base")], "d4").number  # doctest: +SKIP
        276
    """
    folder, data = Dataset.from_images(images), runs[0].config.data
    sight = cells_seen(view_set, folder.tiles[0], release, data.resize)
    dataset = surrounded(folder, runs[0]) if sight else folder
    chosen = dataset.tiles[: len(folder.tiles)]
    return read_inputs(dataset, chosen, runs, release, sight, data.cache, str(images))


def surrounded(folder: Dataset, run: Run) -> Dataset:
    """Return images followed by the tiles of a run's data that lie in the same rasters.

    If positions are unknown, or no tiles are found, the images are returned alone. A log message says which tiles
    windows see.

    Example:
        >>> folder = Dataset.from_images(Path("images"))  # doctest: +SKIP
        >>> len(surrounded(folder, Run.open("runs/base")).tiles)  # doctest: +SKIP
        807
    """
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
            f"These images lie in the picture that the tiles in {root} were cut from: "
            "windows see those around them, too."
        )
        return found
    logger.info(f"Windows see these {number} images only: no neighbours of theirs are known in {root}.")
    return folder
