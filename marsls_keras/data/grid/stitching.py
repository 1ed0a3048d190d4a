"""Stitch connected tiles to arrays and cut them back, for operations on masks across tile borders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.data.index.tile_ref import TileRef

PutBack = Callable[[np.ndarray], None]


def stitch(refs: Sequence[TileRef], arrays: np.ndarray) -> Iterator[tuple[np.ndarray, PutBack]]:
    """Yield the stitched arrays of connected tiles, each with a function that writes it back into its tiles.

    A connected component consists of tiles of one raster that touch at sides or corners. Each tile is in exactly one,
    and nothing in one touches anything in another. Its array is the bounding rectangle of its tiles, 0 where there is
    none. Only one array is in memory at a time, however far apart the components of a raster lie. A tile without a grid
    cell, whose neighbours are unknown, is a component of its own.

    Args:
        refs: The tiles, N of them.
        arrays: (N, H, W, …), such as masks or probabilities; `put_back(picture)` changes them in place.

    Raises:
        ValueError: If two tiles have the same cell of a raster, or the numbers of arrays and tiles differ.

    Example:
        >>> for picture, put_back in stitch(tiles.refs, masks):  # doctest: +SKIP
        ...     put_back(clean(picture))
    """
    if len(refs) != len(arrays):
        raise ValueError(f"Expected an array for each of {len(refs)} tiles. Received: {arrays.shape}")
    height, width = arrays.shape[1:3]
    grid = TileGrid.of(refs, height, width, reach=1)
    for members in pieces(grid):
        origins = grid.origins[members]
        corner = origins.min(axis=0)
        rows, columns = origins.max(axis=0) - corner + (height, width)
        places = [(slice(y, y + height), slice(x, x + width)) for y, x in (origins - corner).tolist()]
        picture = np.zeros((rows, columns, *arrays.shape[3:]), arrays.dtype)
        for tile, place in zip(members, places, strict=True):
            picture[place] = arrays[tile]

        def put_back(changed: np.ndarray, members: np.ndarray = members, places: list = places) -> None:
            for tile, place in zip(members, places, strict=True):
                arrays[tile] = changed[place]

        yield picture, put_back


def pieces(grid: TileGrid) -> list[np.ndarray]:
    """Return the positions of the tiles of each connected component (see `stitch`), ordered by their first tiles.

    Example:
        >>> pieces(TileGrid.apart(1, 32, 32))
        [array([0])]
    """
    number = len(grid.origins)
    padded = np.pad(grid.table, 1, constant_values=-1)
    pairs = []
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
        beside = np.roll(padded, (-down, -right), (0, 1))
        both = (padded >= 0) & (beside >= 0)
        pairs.append(np.stack([padded[both], beside[both]]))
    first, second = np.concatenate(pairs, axis=1)
    count, piece = connected_components(
        coo_array((np.ones(len(first)), (first, second)), shape=(number, number)), directed=False
    )
    found = [np.flatnonzero(piece == label) for label in range(count)]
    return sorted(found, key=lambda members: int(members[0]))
