"""Sample the training windows of every step in advance, so that training can resume at any step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marsls_keras.config import Augmentation, Data
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.data.index.tile_ref import TileRef

_ENOUGH = 0.85
"""Share of a window's pixels that must lie in tiles for the window to stay where it was drawn."""


@dataclass(frozen=True)
class Windows:
    """Positions and symmetries of the windows of every step.

    Attributes:
        grid: Positions of the tiles.
        shapes: Heights and widths in pixels; windows of step t have the shape number t % len(shapes).
        cells: For each shape, the largest number of cells of the table that a window spans along each axis.
        places: For each shape, int32 (steps of that shape, windows per step, 5): top, left, transposed, rows reversed,
            columns reversed. To obtain the training input, the window's rows and columns are reversed first; then it is
            transposed. Only square windows are transposed.

    Example:
        >>> tile_windows(TileGrid.apart(4, 32, 32), 3, 2, Augmentation(), 0).tiles_at(0).size <= 2
        True
    """

    grid: TileGrid
    shapes: tuple[tuple[int, int], ...]
    cells: tuple[int, ...]
    places: tuple[np.ndarray, ...]

    def tiles_at(self, step: int) -> np.ndarray:
        """Return the sorted positions of the tiles that the windows of a step overlap."""
        turn, number = step % len(self.shapes), step // len(self.shapes)
        shape = self.shapes[turn]
        return np.unique(
            np.concatenate([self.grid.tiles_in(top, left, *shape) for top, left in self.places[turn][number, :, :2]])
        )


def window_sides(config: Data, refs: Sequence[TileRef], height: int, width: int) -> tuple[int, ...]:
    """Return the sides in pixels of the training windows; empty if training uses single tiles.

    Windows larger than a tile need adjacent tiles. If the names of the tiles tell of none, as in Landslide4Sense, Bijie
    or a folder of single pictures, such windows would be mostly empty, so training uses single tiles, whatever
    `sampling` says.

    Args:
        config: The section `data` of the configuration.
        refs: The tiles.
        height: Height of a tile in pixels.
        width: Width of a tile in pixels.

    Example:
        >>> from marsls_keras.data import Dataset  # doctest: +SKIP
        >>> config, refs = Data(sampling="windows", window_sizes=(256,)), Dataset.open("bijie").tiles  # doctest: +SKIP
        >>> window_sides(config, refs, 128, 128)  # doctest: +SKIP
        ()
    """
    if config.sampling == "tiles":
        return ()
    if max(config.window_sizes) > min(height, width) and not _side_by_side(refs):
        return ()
    return tuple(config.window_sizes)


def sampling_note(config: Data, sides: Sequence[int]) -> str | None:
    """Return a message if training uses single tiles although the configuration asks for windows, else None.

    Args:
        config: The section `data` of the configuration.
        sides: The result of `window_sides` for it.

    Example:
        >>> sampling_note(Data(sampling="windows", window_sizes=(256,)), [256]) is None
        True
    """
    if config.sampling == "tiles" or sides:
        return None
    return (
        "The names of the tiles do not tell which lie side by side, "
        "so training sees single tiles instead of windows of "
        f"{', '.join(map(str, config.window_sizes))} pixels (data.sampling)."
    )


def _side_by_side(refs: Sequence[TileRef]) -> bool:
    """Return whether any two tiles are adjacent in a grid."""
    places = {(ref.raster, *ref.cell) for ref in refs if ref.cell is not None}
    return any(
        (raster, row + 1, column) in places or (raster, row, column + 1) in places for raster, row, column in places
    )


def tile_windows(grid: TileGrid, steps: int, batch_size: int, augmentation: Augmentation, seed: int) -> Windows:
    """Sample whole tiles as windows, from a stream of permutations of all tiles, with random flips and rotations.

    Tiles that are not square are rotated by 180° only.

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
    """Sample windows at any position in the rasters, with random flips and rotations.

    Each window is centred on a random pixel of the next tile in a stream of permutations of all tiles, so all tiles are
    visited equally often. If tiles cover less than 85 % of it, it is shifted along one axis or both to the position
    with the largest coverage at which its edge is aligned with an edge of that tile; it still contains the pixel. On
    MMLS v1 (five folds of blocks), windows of 128, 192 and 256 pixels thereby carry weight on 99, 96 and 94 % of their
    pixels instead of 87, 81 and 76 %.

    Args:
        grid: Positions of the tiles.
        sides: Sides in pixels, which alternate from step to step.
        steps: Number of steps.
        batch_size: Number of tiles that have about as many pixels as a batch; a batch has at least one window.
        augmentation: Probabilities of flips and rotations.
        seed: Seed.

    Raises:
        ValueError: If `sides` is empty, or a side is larger than the grid's reach.

    Example:
        >>> grid = TileGrid.of(tiles.refs, 128, 128)  # doctest: +SKIP
        >>> picture_windows(grid, (128, 256), 10, 16, Augmentation(), 0).shapes  # doctest: +SKIP
        ((128, 128), (256, 256))
    """
    if not sides or max(sides) > grid.reach:
        raise ValueError(f"Expected sides of windows up to the grid's reach of {grid.reach} pixels. Received: {sides}")
    counts = [max(1, round(batch_size * grid.height * grid.width / side**2)) for side in sides]
    turn = np.arange(steps) % len(sides)
    owner = np.repeat(turn, np.take(counts, turn))  # index into `sides` of each window
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
    """Draw flips and rotations by multiples of 90°.

    Returns int32 (number, 3) of {0, 1}: transposed, rows reversed, columns reversed.

    A rotation by 90° changes the shape of what is not square: there 0° and 90° become 0°, 180° and 270° become 180°,
    and nothing is transposed.

    Rotation also turns the direction of light in the gray band and the aspect of slopes; the slope band is a steepness
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
    """Return the first `length` positions of an endless stream of permutations of all tiles: int (length,)."""
    generator = np.random.default_rng([seed, 0])
    return np.concatenate([generator.permutation(number) for _ in range(-(-length // number))])[:length]


def _corners(grid: TileGrid, tiles: np.ndarray, sides: np.ndarray, seed: int) -> np.ndarray:
    """Draw the window of each tile as described in `picture_windows`: int32 (n, 2), top and left."""
    origin, size = grid.origins[tiles], np.array([grid.height, grid.width], np.int32)
    draw = np.random.default_rng([seed, 2]).random((len(tiles), 2))
    drawn = origin + (draw * size).astype(np.int32) - sides[:, None] // 2
    options = np.stack([drawn, origin, origin + size - sides[:, None]], 1).astype(np.int32)  # (n, 3, 2)
    # Share of each window that lies in tiles, (n, 3, 3).
    share = grid.area(options[:, :, None, 0], options[:, None, :, 1], sides[:, None, None]) / sides[:, None, None] ** 2
    moved = np.abs(options - options[:, :1]) / sides[:, None, None]
    merit = share - 0.01 * (moved[:, :, None, 0] + moved[:, None, :, 1])  # prefer the nearest of equal windows
    merit[share[:, 0, 0] >= _ENOUGH, 0, 0] = 1
    row, column = np.divmod(merit.reshape(len(tiles), 9).argmax(1), 3)
    each = np.arange(len(tiles))
    return np.stack([options[each, row, 0], options[each, column, 1]], 1)
