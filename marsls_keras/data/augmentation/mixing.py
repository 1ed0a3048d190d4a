"""Augmentations that mix tiles of a batch: mosaics of four tiles, and CutMix of landslides.

Partners are drawn uniformly from the other tiles of the batch, before any augmentation. A tile that is alone in its
batch is its own partner.
"""

from __future__ import annotations

import tensorflow as tf

from marsls_keras.data.augmentation.transform import Draws, Sample, fused, where_drawn


class Mosaic:
    """Mosaic: a random window of a square of four tiles, the tile itself at the top left.

    Args:
        probability: Probability per tile.

    Example:
        >>> [part.shape for part in Mosaic(0.5).draw(tf.constant(4), 32, 32, tf.constant([0, 1]))]
        [TensorShape([4]), TensorShape([4, 4]), TensorShape([4, 2])]
    """

    def __init__(self, probability: float) -> None:
        self._probability = probability
        self.active = probability > 0

    def draw(self, number: tf.Tensor, height: int, width: int, seed: tf.Tensor) -> Draws:
        """Draw the mosaic of each tile.

        Returns:
            bool (number,), whether it becomes a mosaic; int32 (number, 4), its four tiles, row by row; int32 (number,
            2), the window's first row and column.
        """
        drawn, *partners, top, left = tf.unstack(tf.random.stateless_uniform((6, number), seed))
        members = tf.stack([tf.range(number), *(_others(number, u) for u in partners)], -1)
        return drawn < self._probability, members, tf.cast(tf.stack([top * height, left * width], -1), tf.int32)

    def __call__(self, tile: Sample, draws: Draws, batch: Sample) -> Sample:
        """Return one transformed tile; see `Transform`."""
        drawn, members, corner = draws
        height, width, _ = tile[0].shape

        def window(_: Sample) -> Sample:
            rows, columns = (corner[0] + tf.range(height))[:, None], corner[1] + tf.range(width)
            member = tf.gather(members, 2 * (rows // height) + columns // width)
            pixel = (member * height + rows % height) * width + columns % width
            return tuple(tf.gather(tf.reshape(values, (-1, values.shape[-1])), pixel) for values in batch)

        return where_drawn(drawn, window, tile)


class CutMix:
    """CutMix of landslides: bands, mask and weight of another tile are pasted where that tile has landslide.

    CutMix (Yun et al., ICCV 2019) in the variant of RMAU-Net, section III-A.

    Args:
        probability: Probability per tile.

    Example:
        >>> [part.shape for part in CutMix(0.5).draw(tf.constant(4), 32, 32, tf.constant([0, 1]))]
        [TensorShape([4]), TensorShape([4])]
    """

    def __init__(self, probability: float) -> None:
        self._probability = probability
        self.active = probability > 0
        self._paste = fused(paste)

    def draw(self, number: tf.Tensor, height: int, width: int, seed: tf.Tensor) -> Draws:
        """Draw for each tile: bool (number,), whether landslides are pasted; int32 (number,), from which tile."""
        drawn, partner = tf.unstack(tf.random.stateless_uniform((2, number), seed))
        return drawn < self._probability, _others(number, partner)

    def __call__(self, tile: Sample, draws: Draws, batch: Sample) -> Sample:
        """Return one transformed tile; see `Transform`."""
        drawn, partner = draws
        return where_drawn(drawn, lambda onto: self._paste(onto, tuple(values[partner] for values in batch)), tile)


def paste(onto: Sample, donor: Sample) -> Sample:
    """Paste the landslides of a donor tile onto a tile.

    Example:
        >>> onto, donor = (tuple(tf.fill((2, 2, 1), value) for _ in range(3)) for value in (0.0, 1.0))
        >>> float(tf.reduce_mean(paste(onto, donor)[0]))
        1.0
    """
    landslide = donor[1] > 0.5
    return tuple(tf.where(landslide, new, old) for new, old in zip(donor, onto, strict=True))


def _others(number: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    """Choose another tile for each tile by u, float32 (number,) in [0, 1); itself if there is no other."""
    return (tf.range(number) + 1 + tf.cast(u * tf.cast(number - 1, tf.float32), tf.int32)) % number
