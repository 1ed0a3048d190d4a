"""Join the decoded tiles of two folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from marsls_keras.data.decoded.disk_cache import DiskImages, Images, TileWriter, cached
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.errors import InputError


def require_alike(tiles: Tiles, others: Tiles, what: str) -> None:
    """Raise an error if tiles differ from others in size or bands, so that they cannot share an array.

    Raises:
        InputError: If they do.

    Example:
        >>> require_alike(labelled, others, "data/extra")  # doctest: +SKIP
    """
    (height, width), (rows, columns) = tiles.images.shape[1:3], others.images.shape[1:3]
    if (height, width) != (rows, columns):
        raise InputError(
            f"{what} holds tiles of {rows} x {columns} pixels, but the labelled ones have {height} x {width}."
        )
    if tiles.bands != others.bands:
        raise InputError(
            f"{what} holds tiles of the bands {', '.join(others.bands)}; "
            f"the labelled ones have {', '.join(tiles.bands)}."
        )


def join(tiles: Tiles, others: Tiles) -> Tiles:
    """Concatenate two sets of tiles; if the images of either are on disk, all are.

    Raises:
        RunError: If images cannot be written to disk.

    Example:
        >>> len(join(labelled, others)) == len(labelled) + len(others)  # doctest: +SKIP
        True
    """
    images: Images
    if isinstance(tiles.images, np.ndarray) and isinstance(others.images, np.ndarray):
        images = np.concatenate([tiles.images, others.images])
    else:
        images = DiskImages(np.concatenate([_on_disk(tiles).files, _on_disk(others).files]), tiles.images.shape[1:])
    return replace(
        tiles,
        refs=(*tiles.refs, *others.refs),
        images=images,
        masks=np.concatenate([tiles.masks, others.masks]),
        valid=np.concatenate([tiles.valid, others.valid]),
        hashes=(*tiles.hashes, *others.hashes),
        geo=(*tiles.geo, *others.geo),
        traces=(*tiles.traces, *others.traces),
    )


def _on_disk(tiles: Tiles) -> DiskImages:
    """Return the images of tiles on disk; images in memory are written to the cache first."""
    if isinstance(tiles.images, DiskImages):
        return tiles.images

    def make(folder: Path) -> dict[str, Any]:
        pile = TileWriter(len(tiles), tiles.images.shape[1:], folder)
        for i in range(len(tiles)):
            pile.add(tiles.images[i], tiles.masks[i], tiles.valid[i])
        return {"shape": pile.arrays()["images"].shape}

    _, arrays = cached(tiles.refs, ("joined", tiles.bands, list(tiles.hashes)), make)
    return arrays["images"]
