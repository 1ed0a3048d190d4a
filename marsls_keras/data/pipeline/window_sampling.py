"""Which windows of the picture training sees at which step; drawn beforehand, so that a step can be reached without those before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marsls_keras.config import Augmentation, Data
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.data.index.tile_ref import TileRef

_ENOUGH = 0.85
"""Share of published pixels with which a window stays where it was drawn."""


@dataclass(frozen=True)
class Windows:
    """The windows of every step.

    Attributes:
        grid: Where the tiles lie.
        shapes: Heights and widths in pixels; step t has windows of the shape number t % len(shapes).
        cells: For each shape, how many cells of the table a window spans at most, along each axis.
        places: For each shape, int32 (steps of that shape, windows per step, 5): top, left, transposed, rows reversed,
            columns reversed. The pixel (i, j) of what training sees is the pixel (i, j) of the window, or (j, i) if
            transposed, with the rows and the columns of the window reversed before. Only square windows are transposed.

    Example:
        >>> tile_windows(TileGrid.apart(4, 32, 32), 3, 2, Augmentation(), 0).tiles_at(0).size <= 2
        True
    """

    grid: TileGrid
    shapes: tuple[tuple[int, int], ...]
    cells: tuple[int, ...]
    places: tuple[np.ndarray, ...]

    def tiles_at(self, step: int) -> np.ndarray:
        """Return the positions of the tiles that the windows of a step touch, sorted, each once."""
        turn, number = step % len(self.shapes), step // len(self.shapes)
        shape = self.shapes[turn]
        return np.unique(
            np.concatenate([self.grid.tiles_in(top, left, *shape) for top, left in self.places[turn][number, :, :2]])
        )


def window_sides(config: Data, refs: Sequence[TileRef], height: int, width: int) -> tuple[int, ...]:
    """Return the sides in pixels of the windows that training samples; none where it sees single tiles.

    Windows larger than a tile need tiles side by side. Where the names of the tiles tell of none, as in
    Landslide4Sense, Bijie or a folder of single pictures, most of such a window would be empty, so training sees single
    tiles, whatever `sampling` says.

    Args:
        config: The section `data` of the configuration.
        refs: The tiles.
        height: Height of a tile in pixels.
        width: Width of a tile in pixels.

    Example:
        >>> from marsls_keras.data import Dataset  # doctest: +SKIP
        >>> window_sides(Data(sampling="windows", window_sizes=(256,)), Dataset.open("bijie").tiles, 128, 128)  # doctest: +SKIP
        ()
    """
    if config.sampling == "tiles":
        return ()
    if max(config.window_sizes) > min(height, width) and not _side_by_side(refs):
        return ()
    return tuple(config.window_sizes)


def sampling_note(config: Data, sides: Sequence[int]) -> str | None:
    """Return a sentence for the user where single tiles take the place of the windows that the configuration asks for; else None.

    Args:
        config: The section `data` of the configuration.
        sides: What `window_sides` returned for it.

    Example:
        >>> sampling_note(Data(sampling="windows", window_sizes=(256,)), [256]) is None
        True
    """
    if config.sampling == "tiles" or sides:
        return None
    return (
        "The names of the tiles do not tell which lie side by side, so training sees single tiles instead of windows of "
        f"{', '.join(map(str, config.window_sizes))} pixels (data.sampling)."
    )


def _side_by_side(refs: Sequence[TileRef]) -> bool:
    """Return whether any two tiles are known to share a border."""
    places = {(ref.raster, *ref.cell) for ref in refs if ref.cell is not None}
    return any(
        (raster, row + 1, column) in places or (raster, row, column + 1) in places for raster, row, column in places
    )


def tile_windows(grid: TileGrid, steps: int, batch_size: int, augmentation: Augmentation, seed: int) -> Windows:
    """Return whole tiles as windows, cut from a stream of permutations of all tiles, flipped and turned, by 180° only if not square.

    Example:
        >>> tile_windows(TileGrid.apart(4, 32, 32), 3, 2, Augmentation(), 0).places[0].shape
        (3, 2, 5)
    """
    square = grid.height == grid.width
    tiles = _permutations(len(grid.origins), steps * batch_size, seed)
    places = np.concatenate([grid.origins[tiles], symmetries(augmentation, len(tiles), seed, square)], 1)
    return Windows(grid, ((grid.height, grid.width),), (1,), (places.reshape(steps, batch_size, 5),))


def picture_windows(
    grid: TileGrid, sides: tuple[int, ...], steps: int, batch_size: int, augmentation: Augmentation, seed: int
) -> Windows:
    """Return windows anywhere in the picture, flipped and turned.

    Each window is centred on a random pixel of the next tile in a stream of permutations of all tiles, so all tiles are
    visited equally often. If less than 85 % of it is published, it is moved, along one axis or both, until an edge of
    it meets the edge of that tile, to where most of it is; it still holds the pixel. On MMLS v1 (five folds of blocks)
    windows of 128, 192 and 256 pixels thereby carry weight on 99, 96 and 94 % of their pixels instead of 87, 81 and 76
    %.

    Args:
        grid: Where the tiles lie.
        sides: Sides in pixels, which take turns from step to step.
        steps: Number of steps.
        batch_size: Tiles whose pixels a step sees, about; it has at least one window.
        augmentation: Probabilities of flips and turns.
        seed: Seed.

    Raises:
        ValueError: If there is no side, or one is larger than the grid's reach.

    Example:
        >>> picture_windows(TileGrid.of(tiles.refs, 128, 128), (128, 256), 10, 16, Augmentation(), 0).shapes  # doctest: +SKIP
        ((128, 128), (256, 256))
    """
    if not sides or max(sides) > grid.reach:
        raise ValueError(f"Expected sides of windows up to the grid's reach of {grid.reach} pixels. Received: {sides}")
    counts = [max(1, round(batch_size * grid.height * grid.width / side**2)) for side in sides]
    turn = np.arange(steps) % len(sides)
    owner = np.repeat(turn, np.take(counts, turn))  # the number of each window's side
    tiles = _permutations(len(grid.origins), len(owner), seed)
    corners = _corners(grid, tiles, np.take(sides, owner), seed)
    places = np.concatenate([corners, symmetries(augmentation, len(tiles), seed)], 1)
    return Windows(
        grid,
        tuple((side, side) for side in sides),
        tuple((min(grid.height, grid.width) + side - 2) // min(grid.height, grid.width) + 1 for side in sides),
        tuple(places[owner == k].reshape(-1, count, 5) for k, count in enumerate(counts)),
    )


def symmetries(config: Augmentation, number: int, seed: int, square: bool = True) -> np.ndarray:
    """Draw flips and quarter turns: int32 (number, 3) of {0, 1}, transposed, rows reversed, columns reversed.

    Of what is not square a quarter turn has another shape: 0 and 1 of them become 0, 2 and 3 become 2, and nothing is
    transposed.

    Turning a tile also turns the light in the gray band and the direction a slope faces; the slope band is a steepness
    and does not change.

    Example:
        >>> symmetries(Augmentation(horizontal_flip=0.0, vertical_flip=0.0, rot90=0.0), 1, 0).tolist()
        [[0, 0, 0]]
    """
    draw = np.random.default_rng([seed, 1]).random((number, 4))
    horizontal, vertical = draw[:, 0] < config.horizontal_flip, draw[:, 1] < config.vertical_flip
    turns = np.where(draw[:, 2] < config.rot90, (draw[:, 3] * 4).astype(np.int32), 0)
    if not square:
        turns &= 2
    # np.rot90(a)[i, j] = a[j, -1 - i]
    return np.stack([turns % 2 == 1, vertical ^ (turns >= 2), horizontal ^ ((turns == 1) | (turns == 2))], 1).astype(
        np.int32
    )


def _permutations(number: int, length: int, seed: int) -> np.ndarray:
    """Return the beginning of an endless stream of permutations of all tiles: int (length,)."""
    generator = np.random.default_rng([seed, 0])
    return np.concatenate([generator.permutation(number) for _ in range(-(-length // number))])[:length]


def _corners(grid: TileGrid, tiles: np.ndarray, sides: np.ndarray, seed: int) -> np.ndarray:
    """Draw a window for each tile, as `picture_windows` says: int32 (n, 2), top and left."""
    origin, size = grid.origins[tiles], np.array([grid.height, grid.width], np.int32)
    draw = np.random.default_rng([seed, 2]).random((len(tiles), 2))
    drawn = origin + (draw * size).astype(np.int32) - sides[:, None] // 2
    options = np.stack([drawn, origin, origin + size - sides[:, None]], 1).astype(np.int32)  # (n, 3, 2)
    # Share of each window that lies in tiles, (n, 3, 3).
    share = grid.area(options[:, :, None, 0], options[:, None, :, 1], sides[:, None, None]) / sides[:, None, None] ** 2
    moved = np.abs(options - options[:, :1]) / sides[:, None, None]
    merit = share - 0.01 * (moved[:, :, None, 0] + moved[:, None, :, 1])  # of equal windows the nearest
    merit[share[:, 0, 0] >= _ENOUGH, 0, 0] = 1
    row, column = np.divmod(merit.reshape(len(tiles), 9).argmax(1), 3)
    each = np.arange(len(tiles))
    return np.stack([options[each, row, 0], options[each, column, 1]], 1)
