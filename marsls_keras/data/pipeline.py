"""tf.data pipelines: shuffle, batch, augment, prefetch; what comes at a step depends on (seed, epoch, step) alone."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from marsls_keras.config import Augmentation
from marsls_keras.data.augment import Dihedral


def steps_per_epoch(tiles: int, batch_size: int) -> int:
    """Return how many batches an epoch has: as many as hold about every tile once."""
    return max(1, round(tiles / batch_size))


def training_batches(
    images: np.ndarray,
    masks: np.ndarray,
    *,
    batch_size: int,
    augmentation: Augmentation,
    seed: int,
    epochs: int,
    start_epoch: int = 0,
    weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Return the batches of the epochs from `start_epoch` on.

    Batches are cut from a stream of permutations of all tiles, so every batch is full and every tile comes equally often. A pipeline
    that starts at a later epoch gives exactly what the whole one gives from there on.

    Args:
        images: float32 (N, H, W, C), normalised.
        masks: uint8 (N, H, W) of {0, 1}.
        batch_size: Tiles per batch.
        augmentation: Probabilities.
        seed: Seed of order and augmentation.
        epochs: Number of epochs in all.
        start_epoch: First epoch, from 0.
        weights: Optional float32 (N, H, W); pixels of weight 0 count neither in losses nor in metrics. Default 1.

    Returns:
        A dataset of (image, mask, weight): float32 (B, H, W, C), float32 (B, H, W, 1), float32 (B, H, W, 1).

    Raises:
        ValueError: If the tiles are not square.
    """
    number, height, width, _ = images.shape
    if height != width:
        raise ValueError(f"Quarter turns need square tiles. Received: {height} x {width}")
    steps = steps_per_epoch(number, batch_size)
    needed = epochs * steps * batch_size
    generator = np.random.default_rng(seed)
    stream = np.concatenate([generator.permutation(number) for _ in range(-(-needed // number))])[:needed]
    order = stream.reshape(epochs * steps, batch_size).astype(np.int32)
    with tf.device("CPU"):
        x, y = tf.constant(images), tf.constant(masks[..., None])
        w = None if weights is None else tf.constant(weights[..., None])
    transform = Dihedral(augmentation, height)

    def batch(step: tf.Tensor) -> tuple:
        index = tf.gather(order, step)
        image, mask = tf.gather(x, index), tf.cast(tf.gather(y, index), tf.float32)
        weight = tf.ones_like(mask) if w is None else tf.gather(w, index)
        return transform((image, mask, weight), tf.stack([tf.constant(seed, tf.int32), tf.cast(step, tf.int32)]))

    first = start_epoch * steps
    return tf.data.Dataset.range(first, epochs * steps).map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(images: np.ndarray, masks: np.ndarray, *, batch_size: int, weights: np.ndarray | None = None) -> tf.data.Dataset:
    """Return the tiles in order, each once; the last batch is filled up with tiles of weight 0, so that all batches have one shape.

    Args and elements are as in `training_batches`.
    """
    number = len(images)
    if weights is None:
        weights = np.ones(masks.shape, np.float32)
    with tf.device("CPU"):
        x, y, w = tf.constant(images), tf.constant(masks[..., None]), tf.constant(weights[..., None])

    def batch(step: tf.Tensor) -> tuple:
        position = step * batch_size + tf.range(batch_size, dtype=tf.int64)
        index = tf.minimum(position, number - 1)
        inside = tf.cast(position < number, tf.float32)[:, None, None, None]
        return tf.gather(x, index), tf.cast(tf.gather(y, index), tf.float32), tf.gather(w, index) * inside

    return tf.data.Dataset.range(-(-number // batch_size)).map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
