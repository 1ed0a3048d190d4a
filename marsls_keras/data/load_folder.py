"""Decode a data folder, or some of its tiles, and add derived bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from marsls_keras.bands.derived import DERIVED
from marsls_keras.config import Data
from marsls_keras.data.decoded.load import load
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.derived.derive import derive
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.index.tile_ref import TileRef


def load_folder(root: Path, config: Data) -> Tiles:
    """Decode all tiles of a data folder and add derived bands, as set in the configuration's section `data`.

    Raises:
        InputError: If the folder is missing or anything in it has an error; all are listed.
        RunError: If decoded tiles cannot be kept on disk.

    Example:
        >>> load_folder(Path("data"), Data(bands=("all", "roughness"))).bands[-1]  # doctest: +SKIP
        'roughness'
    """
    dataset = Dataset.open(root, release=config.release, conflicts=config.conflicts)
    return derive(load(dataset, config.release, config.resize, config.cache), config.bands)


def load_with_neighbours(
    dataset: Dataset,
    chosen: Sequence[TileRef],
    bands: Sequence[str],
    release: str,
    resize: int | None,
    cache: str = "memory",
    sight: int = 0,
) -> Tiles:
    """Decode some tiles of a dataset; their derived bands are the same as if all tiles had been decoded.

    Args:
        dataset: The dataset.
        chosen: The tiles that are wanted.
        bands: Names of all bands that are needed.
        release: As in `marsls_keras.data.decoded.load.examine`.
        resize: Likewise.
        cache: Likewise.
        sight: Tiles up to this many grid cells from a chosen tile are appended to the result, without their masks.

    Raises:
        InputError: If any of the tiles, or a neighbour that is needed, has an error.
        RunError: If decoded tiles cannot be kept on disk.

    Example:
        >>> dataset = Dataset.open("data")  # doctest: +SKIP
        >>> load_with_neighbours(dataset, dataset.tiles[:1], ["roughness"], "auto", None).images.shape  # doctest: +SKIP
        (1, 128, 128, 8)
    """
    wanted = (*chosen, *_neighbours(dataset.tiles, chosen, sight))
    near = (
        _neighbours(dataset.tiles, wanted, 1) if any(DERIVED[band].reach for band in bands if band in DERIVED) else []
    )
    tiles = derive(load(Dataset(dataset.root, (*wanted, *near)), release, resize, cache), bands)
    return tiles.subset(range(len(wanted))) if near else tiles


def _neighbours(refs: Sequence[TileRef], chosen: Sequence[TileRef], sight: int) -> list[TileRef]:
    """Return the tiles within `sight` grid cells of the chosen tiles, diagonals included.

    The chosen tiles themselves are left out. The masks of the returned tiles are set to None.
    """
    around = {
        (ref.raster, ref.cell[0] + down, ref.cell[1] + right)
        for ref in chosen
        if ref.cell is not None
        for down in range(-sight, sight + 1)
        for right in range(-sight, sight + 1)
    }
    own = {ref.id for ref in chosen}
    near = [ref for ref in refs if ref.cell is not None and (ref.raster, *ref.cell) in around and ref.id not in own]
    return [replace(ref, mask=None) for ref in near]
