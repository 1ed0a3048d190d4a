"""Training on several devices: check that batches divide evenly, and synchronise the loss scale of float16."""

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
    """Return an error message if a batch does not divide evenly among the devices, else None.

    Keras cannot start training with shares of different sizes.

    Args:
        config: The configuration.
        tiles: The training tiles.
        batch_size: Tiles per step; with windows, tiles that have as many pixels as the windows of a step.
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
            return (
                f"{key} {size} cannot be shared evenly by {devices} devices. "
                f"Choose a multiple of {devices}, such as {nearest}."
            )
    if not sides:
        return None
    mosaic = TileGrid.of(tiles.refs, height, width, max(sides))
    windows = picture_windows(mosaic, sides, len(sides), batch_size, config.augmentation, config.training.seed)
    numbers = [len(places[0]) for places in windows.places]
    if not any(number % devices for number in numbers):
        return None
    listed = ", ".join(f"{number} of {side} pixels" for number, side in zip(numbers, sides, strict=True))
    return (
        f"training.batch_size {batch_size} gives steps of so many windows: {listed}. {devices} devices can share "
        f"evenly only multiples of {devices}. Choose another batch size, or other data.window_sizes."
    )


class LossScale(keras.optimizers.LossScaleOptimizer):
    """Scale the loss for float16, and skip an update on all devices if a gradient overflowed on any of them.

    In Keras 3.15 each device, or the first one for all, checks only the gradients of its own share, so an overflow on
    another device makes the weights NaN.

    Example:
        >>> model.compile(LossScale(build_optimizer(Training(), steps_per_epoch=25)), loss)  # doctest: +SKIP
    """

    def check_finite(self, grads: list[Any]) -> Any:
        """Return whether the gradients of all devices are finite, a bool scalar."""
        overflows = ops.cast(ops.logical_not(super().check_finite(grads)), "float32")
        return ops.equal(over_replicas([overflows])[0], 0)
