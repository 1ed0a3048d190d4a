"""Tiles for tests of augmentation, and a function that augments them."""

import numpy as np
import tensorflow as tf

from marsls_keras.bands.names import BANDS
from marsls_keras.config import Augmentation
from marsls_keras.data.augmentation.augment import Augment

OFF = {"horizontal_flip": 0.0, "vertical_flip": 0.0, "rot90": 0.0}
SEED = tf.constant([3, 7])


def batch(number=4, height=16, width=16, bands=7, seed=0):
    """Return noise, a mask with areas, and weights of two values: float32 (B, H, W, C), (B, H, W, 1), (B, H, W, 1)."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(number, height, width, bands)).astype(np.float32)
    coarse = rng.random((2, number, -(-height // 4), -(-width // 4))) > 0.5
    mask, weight = coarse.repeat(4, 2).repeat(4, 3)[:, :, :height, :width, None].astype(np.float32)
    return image, mask, weight * 0.5 + 0.5


def coded(number, height, width):
    """Return tiles whose bands are the tile, row and column of each pixel, and masks and weights computed from them."""
    tile, row, column = np.meshgrid(np.arange(number), np.arange(height), np.arange(width), indexing="ij")
    image = np.stack([tile, row, column], -1).astype(np.float32)
    return image, mask_of(tile, row, column)[..., None], weight_of(tile, row, column)[..., None]


def mask_of(tile, row, column):
    return ((row // 3 + column // 5 + tile) % 2).astype(np.float32)


def weight_of(tile, row, column):
    return 0.25 * ((row // 4 + 2 * (column // 6) + tile) % 3).astype(np.float32)


def augment(tiles, seed=SEED, bands=BANDS, units=None, graph=True, **changes):
    """Return the augmented tiles as NumPy arrays, with only the given augmentations switched on."""
    change = Augment(Augmentation(**{**OFF, **changes}), bands, np.ones(len(bands)) if units is None else units)
    run = tf.function(change) if graph else change
    return tuple(values.numpy() for values in run(*map(tf.constant, tiles), seed))


def one(tile):
    """Return the first tile of a batch as tensors."""
    return tuple(tf.constant(values[0]) for values in tile)
