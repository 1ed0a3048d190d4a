"""Read the images that runs are to predict, with the tiles around them that windows see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from marsls_keras.data.decoded.checks import require_same_family
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.load_folder import load_with_neighbours
from marsls_keras.errors import InputError
from marsls_keras.inference.purpose import Purpose
from marsls_keras.inference.sliding_window import cells_seen, stitchable
from marsls_keras.runs.run import Run

Say = Callable[[str], None]


def bands_of(runs: Sequence[Run]) -> list[str]:
    """Return the bands that runs ask for, as in their configurations, each once.

    Example:
        >>> bands_of([Run.open("runs/base")])  # doctest: +SKIP
        ['red', 'green', 'blue', 'dem', 'slope', 'thermal', 'gray']
    """
    return list(dict.fromkeys(band for run in runs for band in run.config.data.bands))


def purpose_of(images: Dataset, run: Run, say: Say) -> Purpose:
    """Return what a decision on images is for: "published" if half of them or more have labelled neighbours in a run's data, else "region".

    Args:
        images: The images, a plain folder.
        run: The run.
        say: Told if they lie outside the training pictures.

    Example:
        >>> purpose_of(Dataset.from_images("data/test"), Run.open("runs/base"), print)  # doctest: +SKIP
        <Purpose.PUBLISHED: 'published'>
    """
    root = run.data_root
    try:
        found = images.located_in(Dataset.open(root, release=run.config.data.release, conflicts=run.config.data.conflicts))
    except InputError:
        say(f"The run's data are no longer in {root}, or damaged, so nobody can tell where these images lie: taken for a new region.")
        return Purpose.REGION
    labelled = {(tile.raster, *tile.cell) for tile in found.tiles if tile.cell is not None and tile.labelled}
    near = [
        tile.cell is not None
        and any((tile.raster, tile.cell[0] + i, tile.cell[1] + j) in labelled for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j)
        for tile in found.tiles[: len(images.tiles)]
    ]
    if 2 * sum(near) >= len(near):
        return Purpose.PUBLISHED
    say(f"These images lie outside the pictures of the labelled tiles in {root}: the decision is the one for a new region.")
    return Purpose.REGION


def read_images(images: Path, release: str, runs: Sequence[Run], view_set: str, say: Say) -> Tiles:
    """Read a folder of image tiles that these runs can predict, and after them the tiles around that windows of a set of views see.

    Args:
        images: The folder.
        release: Release of the tiles, or "auto".
        runs: The runs that will predict them.
        view_set: Name of a set of views.
        say: Told what windows see.

    Raises:
        InputError: If the folder is missing or empty, a file is damaged, names clash, or the tiles are of another kind of release.

    Example:
        >>> tiles = read_images(Path("data/test"), "auto", [Run.open("runs/base")], "d4@256", print)  # doctest: +SKIP
    """
    folder, data = Dataset.from_images(images), runs[0].config.data
    sight = cells_seen(view_set, folder.tiles[0], release, data.resize)
    dataset = surrounded(folder, runs[0], say) if sight else folder
    chosen = dataset.tiles[: len(folder.tiles)]
    tiles = load_with_neighbours(dataset, chosen, bands_of(runs), release, data.resize, data.cache, sight)
    for run in runs:
        require_same_family(run.fingerprint["release"], tiles.release, str(images))
    return tiles


def surrounded(folder: Dataset, run: Run, say: Say) -> Dataset:
    """Return a folder of images and, after them, the tiles of a run's data known to lie in the same picture; say whether any do.

    Example:
        >>> folder = Dataset.from_images("data/test")  # doctest: +SKIP
        >>> len(surrounded(folder, Run.open("runs/base"), print).tiles) >= len(folder.tiles)  # doctest: +SKIP
        True
    """
    number, root = len(folder.tiles), run.data_root
    if not stitchable(folder.tiles):
        return folder
    try:
        found = folder.located_in(Dataset.open(root, release=run.config.data.release, conflicts=run.config.data.conflicts))
    except InputError:  # the run's data are gone or damaged, and can be done without
        found = folder
    if len(found.tiles) > number:
        say(f"These images lie in the picture that the tiles in {root} were cut from: windows see those around them, too.")
        return found
    say(f"Windows see these {number} images only: no neighbours of theirs are known in {root}.")
    return folder
