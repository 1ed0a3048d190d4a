"""What all random changes of tiles share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

Sample = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
"""Image, mask and weight: float32 (H, W, C), (H, W, 1), (H, W, 1), H, W and C known when the graph is made."""

Draws = tuple[tf.Tensor, ...]
"""What was drawn, for all tiles of a batch (their number is the first dimension) or for one of them."""


class Transform(Protocol):
    """A random transform of training tiles.

    Attributes:
        active: Whether anything may happen at all; if not, it is left out of the graph.

    Example:
        >>> draws = transform.draw(tf.constant(4), 32, 32, tf.constant([0, 1]))  # doctest: +SKIP
        >>> transform(tile, tuple(part[0] for part in draws), batch)  # doctest: +SKIP
    """

    active: bool

    def draw(self, number: tf.Tensor, height: int, width: int, seed: tf.Tensor) -> Draws:
        """Draw what happens to each of `number`, int32 (), tiles; equal seeds, int32 (2,), draw the same."""

    def __call__(self, tile: Sample, draws: Draws, batch: Sample) -> Sample:
        """Return one tile changed.

        Args:
            tile: The tile, perhaps changed before.
            draws: Its part of what `draw` returned.
            batch: All tiles as they were before any change: float32 (B, H, W, C), (B, H, W, 1), (B, H, W, 1).
        """


def fused(function: Callable) -> Callable:
    """Return a function of tensors of known shapes, compiled by XLA where this TensorFlow has it.

    Changing a tile is bound by memory: each operation on its own reads and writes the whole tile. In one loop, without
    arrays in between, most changes take a half to a third of the time. The result is the same but for rounding, and
    from run to run to the bit.

    Example:
        >>> float(fused(lambda x: 2 * x + 1)(tf.constant(3.0)))
        7.0
    """
    return tf.function(function, autograph=False, jit_compile=tf.test.is_built_with_xla())


def where_drawn(drawn: tf.Tensor, change: Callable[[Any], Any], value: Any) -> Any:
    """Return `change(value)` if bool () `drawn`, else the value; only what is drawn is computed.

    Example:
        >>> int(where_drawn(tf.constant(True), lambda x: x + 1, tf.constant(1)))
        2
    """
    return tf.cond(drawn, lambda: change(value), lambda: value)


def between(bounds: tuple[float, float], u: tf.Tensor) -> tf.Tensor:
    """Return u of [0, 1) brought to [low, high).

    Example:
        >>> float(between((0.5, 1.5), tf.constant(0.25)))
        0.75
    """
    return bounds[0] + (bounds[1] - bounds[0]) * u
