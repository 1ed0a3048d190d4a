"""Build tf.data pipelines of training and evaluation batches; the batch of a step depends only on (seed, step)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeGuard

import numpy as np
import tensorflow as tf

from marsls_keras.bands.directions import Directions
from marsls_keras.config import Augmentation
from marsls_keras.data.augmentation.augment import Augment
from marsls_keras.data.augmentation.transform import fused
from marsls_keras.data.decoded.disk_cache import DiskImages, chunks
from marsls_keras.data.decoded.tf_reader import TfReader
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.data.normalization import Inputs
from marsls_keras.data.pipeline.window_sampling import picture_windows, tile_windows

_TURNS = np.array(
    [
        np.array([[1, 0], [0, 1]] if not transposed else [[0, 1], [1, 0]]) * [1 - 2 * rows, 1 - 2 * columns]
        for transposed, rows, columns in itertools.product((0, 1), repeat=3)
    ],
    np.float32,
)
"""Matrices of vectors (down the rows, along the columns) for each symmetry of a window.

The index is 4 transposed + 2 rows reversed + columns reversed; rows and columns are reversed before transposing.
"""


def steps_per_epoch(tiles: int, batch_size: int) -> int:
    """Return the number of batches per epoch, such that each tile is seen about once.

    Example:
        >>> steps_per_epoch(372, 16)
        23
    """
    return max(1, round(tiles / batch_size))


class TrainingBatches:
    """Batches of a whole training, which can start at any step with the same batches as an uninterrupted run.

    Without a grid, a batch is `batch_size` tiles from a stream of permutations, so every batch is full and all tiles
    occur equally often. Tiles that are not square are mirrored and rotated by 180°, but not by 90°.

    With a grid, a batch is square windows from anywhere in the rasters. All windows of step t have the side sizes[t %
    len(sizes)]. Their number is chosen so that a batch has about as many pixels as `batch_size` tiles; so epochs have
    the same number of steps either way. Where a window covers no tile of `images`, the input is 0 (the band's mean
    after the z-score) with mask 0 and weight 0.

    Args:
        images: float32 (N, H, W, C), normalised training tiles, and no other tiles. They are held as tensors; `Inputs`
            on disk are read and normalised per batch instead, with the same result.
        masks: uint8 (N, H, W) of {0, 1}.
        batch_size: Tiles per batch.
        augmentation: Probabilities and strengths of the augmentations.
        bands: Names of the C bands; vectors among them rotate with the tiles.
        units: Change of each band for a change of 1 in the scale of tiles (`Normalizer.units`).
        seed: Seed of order, window positions and augmentation.
        epochs: Total number of epochs; a larger number does not change the first epochs.
        grid: Positions of the tiles, to sample windows; None to sample tiles.
        sizes: Sides of the windows in pixels, smaller or larger than tiles, up to the grid's reach.
        weights: Optional float32 (N, H, W), default 1; pixels of weight 0 count neither in losses nor in metrics.
        finish: Converts augmented images (B, S, S, C) to network input (`Normalizer.assemble`).

    Attributes:
        steps_per_epoch: Number of batches per epoch.

    Raises:
        ValueError: If the sizes do not fit the grid.

    Example:
        >>> images, masks = np.zeros((6, 32, 32, 1), np.float32), np.zeros((6, 32, 32), np.uint8)
        >>> options = {"augmentation": Augmentation(), "bands": ("dem",), "units": (1.0,), "seed": 0, "epochs": 2}
        >>> batches = TrainingBatches(images, masks, batch_size=3, **options)
        >>> image, mask, weight = next(iter(batches.dataset()))
        >>> batches.steps_per_epoch, image.shape
        (2, TensorShape([3, 32, 32, 1]))
    """

    def __init__(
        self,
        images: np.ndarray | Inputs,
        masks: np.ndarray,
        *,
        batch_size: int,
        augmentation: Augmentation,
        bands: Sequence[str],
        units: Sequence[float],
        seed: int,
        epochs: int,
        grid: TileGrid | None = None,
        sizes: Sequence[int] = (),
        weights: np.ndarray | None = None,
        finish: Callable[[tf.Tensor], tf.Tensor] = lambda image: image,
    ) -> None:
        number, height, width, _ = images.shape
        self.steps_per_epoch = steps_per_epoch(number, batch_size)
        self._steps = epochs * self.steps_per_epoch
        self._seed = seed
        if grid is None:
            self._windows = tile_windows(
                TileGrid.apart(number, height, width), self._steps, batch_size, augmentation, seed
            )
        else:
            self._windows = picture_windows(grid, tuple(sizes), self._steps, batch_size, augmentation, seed)
        self._augment, self._finish = Augment(augmentation, bands, units), finish
        self._directions = Directions(bands)
        self._turn = fused(self._directions.turn)
        with tf.device("CPU"):
            self._places = [tf.constant(places) for places in self._windows.places]
            parts = [masks[..., None], *([] if weights is None else [weights[..., None]])]
            if _on_disk(images):
                self._source: _Source = _Streamed(images, parts)
            else:
                self._source = _Held([images, *parts])

    def tiles_at(self, step: int) -> np.ndarray:
        """Return the sorted positions of the tiles that the batch of a global step uses."""
        return self._windows.tiles_at(step)

    def dataset(self, start_step: int = 0) -> tf.data.Dataset:
        """Return the batches from a global step on; step 0 is the first step of the first epoch.

        Returns:
            A dataset of (image, mask, weight): float32 (B, S, S, C), (B, S, S, 1), (B, S, S, 1); for tiles (B, H, W,
            …). The shape is static if all windows have the same side.
        """
        branches = [partial(self._batch, turn) for turn in range(len(self._windows.shapes))]

        def batch(step: tf.Tensor) -> tuple:
            calls: list[Callable] = [partial(branch, step) for branch in branches]
            return calls[0]() if len(calls) == 1 else tf.switch_case(tf.cast(step % len(calls), tf.int32), calls)

        return _mapped(tf.data.Dataset.range(start_step, self._steps), batch)

    def _batch(self, turn: int, step: tf.Tensor) -> tuple:
        """Return the batch of a step whose windows have the side number `turn`."""
        windows = self._windows
        places = tf.gather(self._places[turn], step // len(windows.shapes))
        (images, masks, *weights), index = self._pixels(places, windows.shapes[turn], windows.cells[turn])
        image, mask = tf.gather(images, index), tf.cast(tf.gather(masks, index), tf.float32)
        if self._directions.vectors:
            turns = tf.gather(_TURNS, tf.linalg.matvec(places[:, 2:], [4, 2, 1]))  # (B, 2, 2)
            image = self._turn(image, turns[:, None, None])
        if weights:
            weight = tf.gather(weights[0], index)
        else:
            empty = tf.shape(masks)[0] - windows.grid.height * windows.grid.width  # first pixel of the empty tile
            weight = tf.cast(index < empty, tf.float32)[..., None]
        image, mask, weight = self._augment(
            image, mask, weight, tf.stack([tf.constant(self._seed, tf.int32), tf.cast(step, tf.int32)])
        )
        return self._finish(image), mask, weight

    def _pixels(self, places: tf.Tensor, shape: tuple[int, int], cells: int) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Return the pixels of the source, flattened, and the index of each pixel of the windows: int32 (B, *shape).

        The index is (tile) x (pixels of a tile) + (row in the tile) x (width) + (column in the tile). The first term
        depends only on the cell, the others only on the row or column, so each window's indices are one product of two
        thin matrices.

        Args:
            places: int32 (B, 5), as in `Windows`.
            shape: Height and width of the windows.
            cells: Largest number of cells that a window spans along each axis.
        """
        grid = self._windows.grid
        height, width = grid.height, grid.width
        absent = len(grid.origins)  # index of the empty tile after all others
        table = np.where(grid.table < 0, absent, grid.table).astype(np.int32)
        size, stride = tf.constant([[height], [width]]), tf.constant([[width], [1]])
        corner, transposed, reverse = places[:, :2, None], places[:, 2, None, None] > 0, places[:, 3:, None]
        last = tf.constant(shape)[:, None] - 1
        # (2, longer side): along the shorter side the last pixel is repeated, and cut off below.
        along = tf.minimum(tf.range(max(shape)), last)
        position = corner + along + reverse * (last - 2 * along)  # (B, 2, longer side): rows, columns
        first = corner // size
        cell, offset = position // size - first, position % size * stride
        cell, offset = (tf.where(transposed, x[:, ::-1], x) for x in (cell, offset))
        near = first + tf.range(cells)  # (B, 2, cells)
        rows, columns = near[:, 0] * table.shape[1], near[:, 1]
        upright, turned = rows[:, :, None] + columns[:, None, :], rows[:, None, :] + columns[:, :, None]
        tiles = tf.gather(table.ravel(), tf.where(transposed, turned, upright))  # (B, cells, cells)
        parts, tiles = self._source.fetch(tiles)
        tiles = tiles * (height * width)
        ones = tf.ones_like(offset[:, 0])
        # (B, longer side, cells + 2)
        left = tf.concat([tf.gather(tiles, cell[:, 0], batch_dims=1), tf.stack([offset[:, 0], ones], 2)], 2)
        right = tf.concat([tf.one_hot(cell[:, 1], cells, axis=1, dtype=tf.int32), tf.stack([ones, offset[:, 1]], 1)], 1)
        return parts, tf.matmul(left[:, : shape[0]], right[:, :, : shape[1]])


def _on_disk(images: np.ndarray | Inputs) -> TypeGuard[Inputs]:
    return isinstance(images, Inputs) and isinstance(images.images, DiskImages)


def _mapped(steps: tf.data.Dataset, batch: Callable[[tf.Tensor], tuple]) -> tf.data.Dataset:
    """Return a dataset of the batches of these steps, made in parallel and prefetched."""
    options = tf.data.Options()
    # The default optimisations would copy the held tensors once for every iterator.
    options.experimental_optimization.apply_default_optimizations = False
    return steps.map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE).with_options(options)


def _tensor(images: np.ndarray | Inputs, empty: int = 0) -> tf.Tensor:
    """Copy images (N, H, W, C) to a tensor, followed by `empty` tiles of zeros.

    They are copied in chunks: `tf.constant` would make two more copies, and normalising all at once three.
    """
    held = tf.zeros((len(images) + empty, *images.shape[1:]), images.dtype)
    for part in chunks(images):
        tf.raw_ops.InplaceUpdate(x=held, i=np.arange(part.start, part.stop, dtype=np.int32), v=images[part])
    return held


class _Source(Protocol):
    """Interface of a source of pixels for batches."""

    def fetch(self, tiles: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Return the pixels of the tiles needed, followed by an empty tile, and the index of each tile among them.

        Args:
            tiles: int32 of any shape, positions of tiles; N stands for no tile.

        Returns:
            For each part the pixels ((K + 1) H W, C) of K tiles and the empty one; int32 of the shape of `tiles`.
        """


class _Held:
    """Source that holds all tiles as tensors.

    Args:
        parts: For each part an array (N, H, W, C).
    """

    def __init__(self, parts: Sequence[np.ndarray | Inputs]) -> None:
        self._parts = [tf.reshape(_tensor(part, empty=1), (-1, part.shape[-1])) for part in parts]

    def fetch(self, tiles: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Return all tiles; see `_Source`."""
        return self._parts, tiles


class _Streamed:
    """Source that reads the images of a batch from disk.

    Args:
        images: The images, on disk.
        others: For each other part an array (N, H, W, C), held as a tensor.
    """

    def __init__(self, images: Inputs, others: list[np.ndarray]) -> None:
        self._number = len(images)
        self._parts: list[Callable] = [TfReader(images), *(partial(tf.gather, tf.constant(part)) for part in others)]

    def fetch(self, tiles: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Return the tiles that are used; see `_Source`."""
        # (K + 1,); the last one stands for no tile.
        touched = tf.sort(tf.unique(tf.concat([tf.reshape(tiles, [-1]), [self._number]], 0)).y)
        slots = tf.reshape(tf.searchsorted(touched, tf.reshape(tiles, [-1])), tf.shape(tiles))
        found = [part(touched[:-1]) for part in self._parts]  # (K, H, W, C)
        return [
            tf.reshape(tf.concat([part, tf.zeros_like(part[:1])], 0), (-1, part.shape[-1])) for part in found
        ], slots


def evaluation_batches(
    images: np.ndarray | Inputs,
    masks: np.ndarray,
    *,
    batch_size: int,
    weights: np.ndarray | None = None,
    finish: Callable[[tf.Tensor], tf.Tensor] = lambda image: image,
) -> tf.data.Dataset:
    """Return batches of all tiles in order, each tile once.

    The last batch is filled up with tiles of weight 0, so that all batches have the same shape. Args and elements are
    as in `TrainingBatches` without a grid.

    Example:
        >>> images, masks = np.zeros((5, 32, 32, 1), np.float32), np.zeros((5, 32, 32), np.uint8)
        >>> [int(weight[:, 0, 0, 0].numpy().sum()) for _, _, weight in evaluation_batches(images, masks, batch_size=2)]
        [2, 2, 1]
    """
    number = len(images)
    if weights is None:
        weights = np.ones(masks.shape, np.float32)
    with tf.device("CPU"):
        y, w = tf.constant(masks[..., None]), tf.constant(weights[..., None])
        x = TfReader(images) if _on_disk(images) else partial(tf.gather, _tensor(images))

    def batch(step: tf.Tensor) -> tuple:
        position = step * batch_size + tf.range(batch_size, dtype=tf.int64)
        index = tf.minimum(position, number - 1)
        inside = tf.cast(position < number, tf.float32)[:, None, None, None]
        return finish(x(index)), tf.cast(tf.gather(y, index), tf.float32), tf.gather(w, index) * inside

    return _mapped(tf.data.Dataset.range(-(-number // batch_size)), batch)
