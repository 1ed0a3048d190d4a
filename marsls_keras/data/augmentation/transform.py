"""Interface of augmentations of single tiles, and helpers that they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

Sample = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
"""Image, mask and weight: float32 (H, W, C), (H, W, 1), (H, W, 1), with static H, W and C."""

Draws = tuple[tf.Tensor, ...]
"""Random draws of a transform, for all tiles of a batch (first dimension) or for one of them."""


class Transform(Protocol):
    """Interface of a random transform of training tiles.

    Attributes:
        active: Whether it can have any effect; if not, it is left out of the graph.

    Example:
        >>> draws = transform.draw(tf.constant(4), 32, 32, tf.constant([0, 1]))  # doctest: +SKIP
        >>> transform(tile, tuple(part[0] for part in draws), batch)  # doctest: +SKIP
    """

    active: bool

    def draw(self, number: tf.Tensor, height: int, width: int, seed: tf.Tensor) -> Draws:
        """Draw the transform of each of `number`, int32 (), tiles; equal seeds, int32 (2,), give equal draws."""

    def __call__(self, tile: Sample, draws: Draws, batch: Sample) -> Sample:
        """Return one transformed tile.

        Args:
            tile: The tile, possibly changed by earlier transforms.
            draws: Its part of the result of `draw`.
            batch: All tiles before augmentation: float32 (B, H, W, C), (B, H, W, 1), (B, H, W, 1).
        """


def fused(function: Callable) -> Callable:
    """Compile a function of tensors of static shape, by XLA if this TensorFlow has it.

    Augmentation is bound by memory bandwidth: each separate operation reads and writes the whole tile. Fused to one
    loop without intermediate arrays, most transforms take a half to a third of the time. Results differ only by
    rounding, and are bit-identical from run to run.

    Example:
        >>> float(fused(lambda x: 2 * x + 1)(tf.constant(3.0)))
        7.0
    """
    return tf.function(function, autograph=False, jit_compile=tf.test.is_built_with_xla())


def where_drawn(drawn: tf.Tensor, change: Callable[[Any], Any], value: Any) -> Any:
    """Return `change(value)` if `drawn`, bool (), is true, else `value`; `change` is computed only if needed.

    Example:
        >>> int(where_drawn(tf.constant(True), lambda x: x + 1, tf.constant(1)))
        2
    """
    return tf.cond(drawn, lambda: change(value), lambda: value)


def between(bounds: tuple[float, float], u: tf.Tensor) -> tf.Tensor:
    """Scale u from [0, 1) to [low, high).

    Example:
        >>> float(between((0.5, 1.5), tf.constant(0.25)))
        0.75
    """
    return bounds[0] + (bounds[1] - bounds[0]) * u
