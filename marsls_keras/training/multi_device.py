"""What a batch must be like for several devices to share it, and what they must agree on."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from marsls_keras.config import Config
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.data.pipeline.window_sampling import picture_windows, window_sides
from marsls_keras.losses.sums import over_replicas


def uneven_shares(config: Config, tiles: Tiles, batch_size: int, devices: int) -> str | None:
    """Return which batches do not divide evenly among devices, or None if all do; Keras cannot begin with shares of different sizes.

    Args:
        config: The configuration.
        tiles: The tiles.
        batch_size: Tiles a step, or as many as have the pixels of a step's windows.
        devices: Devices that share each batch.

    Example:
        >>> uneven_shares(Config(), tiles, batch_size=16, devices=3)  # doctest: +SKIP
        'inference.batch_size 16 cannot be shared evenly by 3 devices. Choose a multiple of 3, such as 18.'
    """
    if devices == 1:
        return None
    sizes = {"inference.batch_size": config.inference.batch_size}
    height, width = tiles.images.shape[1:3]
    sides = window_sides(config.data, tiles.refs, height, width)
    if not sides:
        sizes["training.batch_size"] = batch_size
    for key, size in sizes.items():
        if size % devices:
            nearest = -(-size // devices) * devices
            return f"{key} {size} cannot be shared evenly by {devices} devices. Choose a multiple of {devices}, such as {nearest}."
    if not sides:
        return None
    mosaic = TileGrid.of(tiles.refs, height, width, max(sides))
    windows = picture_windows(mosaic, sides, len(sides), batch_size, config.augmentation, config.training.seed)
    numbers = [len(places[0]) for places in windows.places]
    if not any(number % devices for number in numbers):
        return None
    listed = ", ".join(f"{number} of {side} pixels" for number, side in zip(numbers, sides, strict=True))
    return (
        f"training.batch_size {batch_size} gives steps of so many windows: {listed}. {devices} devices can share evenly only multiples of "
        f"{devices}. Choose another batch size, or other data.window_sizes."
    )


class LossScale(keras.optimizers.LossScaleOptimizer):
    """Keras' scaling of the loss for float16, whose devices agree on whether a gradient has overflowed.

    In Keras 3.15 each device, or the first one for all, looks at the gradients of its own share, so an overflow on
    another device ends in weights that are no numbers.

    Example:
        >>> model.compile(LossScale(build_optimizer(Training(), steps_per_epoch=25)), loss)  # doctest: +SKIP
    """

    def check_finite(self, grads: list[Any]) -> Any:
        """Return whether the gradients of all devices are finite, a bool scalar."""
        overflows = ops.cast(ops.logical_not(super().check_finite(grads)), "float32")
        return ops.equal(over_replicas([overflows])[0], 0)
