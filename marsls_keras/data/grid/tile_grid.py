"""Positions of tiles in their rasters, and reading of windows across tile borders without stitching a raster."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from marsls_keras.data.decoded.disk_cache import Images
from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.data.normalization import Inputs


@dataclass(frozen=True, eq=False)
class TileGrid:
    """Positions of tiles in one plane of pixels that holds all rasters.

    The rasters are so far apart, and so far from the border of the plane, that a window no larger than `reach` that
    overlaps one raster overlaps no other and stays inside the plane. Pixels are looked up in the array of tiles through
    the table; the plane itself is never stored.

    Attributes:
        height: Height of a tile in pixels.
        width: Width of a tile in pixels.
        reach: Largest side in pixels of a window that may be read anywhere.
        table: int32 (R, C), position in the array of tiles of the tile in each cell of height x width pixels, or -1 for
            none.
        origins: int32 (N, 2), (top, left) of each tile's first pixel, in pixels.

    Example:
        >>> grid = TileGrid.apart(3, 32, 32)
        >>> grid.origin(2), grid.tiles_in(30, 0, 4, 4).tolist()
        ((64, 0), [0, 1])
    """

    height: int
    width: int
    reach: int
    table: np.ndarray
    origins: np.ndarray

    @classmethod
    def of(cls, refs: Sequence[TileRef], height: int, width: int, reach: int = 512) -> TileGrid:
        """Lay out tiles by raster and grid cell; a tile without a cell, whose neighbours are unknown, is placed alone.

        Within a raster, distances of tiles up to `reach` are kept; wider gaps are shortened to it, since no window
        spans them.

        Args:
            refs: The tiles, in the order of their array.
            height: Height of a tile in pixels.
            width: Width of a tile in pixels.
            reach: Largest side of a window in pixels.

        Raises:
            ValueError: If two tiles have the same cell of a raster.
        """
        rasters: dict[Hashable, list[int]] = defaultdict(list)
        for i, ref in enumerate(refs):
            rasters[i if ref.cell is None else ref.raster].append(i)
        gap = -(-reach // min(height, width)) + 1
        cells = np.zeros((len(refs), 2), np.int32)
        for members in rasters.values():
            place = np.stack(
                [_closed_up(axis, gap) for axis in np.array([refs[i].cell or (0, 0) for i in members]).T], 1
            )
            place[:, 1] += cells[:, 1].max(initial=0)  # to the right of the rasters before
            cells[members] = place + gap
        rows, columns = cells.max(axis=0, initial=0) + 1 + gap
        table = np.full((rows, columns), -1, np.int32)
        table[*cells.T] = np.arange(len(refs))
        hidden = [refs[i].id for i in range(len(refs)) if table[*cells[i]] != i]
        if hidden:
            raise ValueError(
                f"Each tile needs a grid cell of its own. Received tiles in cells of others: {', '.join(hidden)}"
            )
        return cls(height, width, reach, table, cells * np.array([height, width], np.int32))

    @classmethod
    def apart(cls, number: int, height: int, width: int) -> TileGrid:
        """Lay out tiles in one column without gaps, for reading whole tiles only."""
        origins = np.stack([np.arange(number, dtype=np.int32) * height, np.zeros(number, np.int32)], 1)
        return cls(height, width, 0, np.arange(number, dtype=np.int32)[:, None], origins)

    def origin(self, tile: int) -> tuple[int, int]:
        """Return (top, left) of a tile in pixels."""
        top, left = self.origins[tile]
        return int(top), int(left)

    def tiles_in(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return the sorted positions of the tiles that a rectangle overlaps."""
        rows = slice(max(top // self.height, 0), max((top + height - 1) // self.height + 1, 0))
        columns = slice(max(left // self.width, 0), max((left + width - 1) // self.width + 1, 0))
        found = self.table[rows, columns]
        return np.sort(found[found >= 0])

    def read(self, array: Images | Inputs, top: int, left: int, height: int, width: int, fill: float = 0) -> np.ndarray:
        """Read a rectangle of the plane from the tiles.

        Args:
            array: The tiles, (N, height of a tile, width of a tile, …), in memory or on disk.
            top: First row in pixels; the rectangle may reach beyond the plane.
            left: First column in pixels.
            height: Rows.
            width: Columns.
            fill: Value where there is no tile.

        Returns:
            (height, width, …) of the array's type.
        """
        picture = np.full((height, width, *array.shape[3:]), fill, array.dtype)
        for tile in self.tiles_in(top, left, height, width):
            down, right = self.origins[tile] - (top, left)
            y, x = max(down, 0), max(right, 0)
            part = array[tile][y - down : height - down, x - right : width - right]
            picture[y : y + part.shape[0], x : x + part.shape[1]] = part
        return picture

    def area(self, top: np.ndarray, left: np.ndarray, side: np.ndarray) -> np.ndarray:
        """Return the number of pixels of square windows that lie in tiles.

        Args:
            top: Integer array, first rows; the windows must lie inside the plane.
            left: Integer array, first columns.
            side: Sides in pixels.

        Returns:
            float64 array, of the shape to which the three broadcast.
        """
        corner = np.zeros(np.add(self.table.shape, 1))
        corner[1:, 1:] = (self.table >= 0).cumsum(0).cumsum(1) * self.height * self.width

        def before(y: np.ndarray, x: np.ndarray) -> np.ndarray:
            # Cells are full or empty, so the area above and left of a pixel is bilinear between the cell's corners.
            (i, v), (j, u) = np.divmod(y, self.height), np.divmod(x, self.width)
            v, u = v / self.height, u / self.width
            k, m = np.minimum(i + 1, self.table.shape[0]), np.minimum(j + 1, self.table.shape[1])
            return (1 - v) * ((1 - u) * corner[i, j] + u * corner[i, m]) + v * (
                (1 - u) * corner[k, j] + u * corner[k, m]
            )

        bottom, right = top + side, left + side
        return before(bottom, right) - before(top, right) - before(bottom, left) + before(top, left)


def _closed_up(values: np.ndarray, gap: int) -> np.ndarray:
    """Renumber grid positions from 0 on, with at most `gap` unused ones between two used ones."""
    used, inverse = np.unique(values, return_inverse=True)
    return np.concatenate([[0], np.minimum(np.diff(used), gap + 1).cumsum()]).astype(np.int32)[inverse]
