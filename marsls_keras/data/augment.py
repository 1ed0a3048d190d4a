"""Vectorised augmentation of whole batches inside tf.data."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from marsls_keras.config import Augmentation


def _symmetries(size: int) -> np.ndarray:
    """Return, for quarter turns k and mirroring m, the flat source index of every pixel: int32 (8, size²), row 2k + m."""
    grid = np.arange(size * size, dtype=np.int32).reshape(size, size)
    return np.stack([np.rot90(grid[:, ::-1] if m else grid, k).ravel() for k in range(4) for m in range(2)])


class Dihedral:
    """Random flips and quarter turns of square tiles, bands and mask together, by one exact gather.

    Turning a tile also turns the light in the gray band and the direction a slope faces; the slope band is a steepness and does not change.

    Args:
        config: Probabilities.
        size: Height and width of the tiles in pixels.
    """

    def __init__(self, config: Augmentation, size: int) -> None:
        self.config = config
        self.size = size
        self._table = _symmetries(size)

    def __call__(self, batch: tuple, seed: tf.Tensor) -> tuple:
        """Transform a batch.

        Args:
            batch: Tensors (B, size, size, C), each with its own C.
            seed: int32 (2,); equal seeds give equal transformations.

        Returns:
            The tensors, transformed alike.
        """
        number = tf.shape(batch[0])[0]
        draw = tf.random.stateless_uniform((4, number), seed)
        horizontal = draw[0] < self.config.horizontal_flip
        vertical = draw[1] < self.config.vertical_flip
        turns = tf.where(draw[2] < self.config.rot90, tf.cast(draw[3] * 4, tf.int32), 0)
        # A vertical flip is a horizontal one followed by half a turn, so all three are one of the eight symmetries.
        element = 2 * ((turns + 2 * tf.cast(vertical, tf.int32)) % 4) + tf.cast(horizontal != vertical, tf.int32)
        index = tf.gather(self._table, element)  # (B, size²)

        def gather(x: tf.Tensor) -> tf.Tensor:
            flat = tf.reshape(x, (number, self.size * self.size, x.shape[-1]))
            return tf.reshape(tf.gather(flat, index, batch_dims=1), (number, self.size, self.size, x.shape[-1]))

        return tuple(gather(x) for x in batch)
