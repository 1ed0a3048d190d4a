"""Learned position embedding of a feature map."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from marsls_keras.layers.resize import interpolation


@keras.saving.register_keras_serializable("marsls_keras")
class PositionEmbedding(keras.layers.Layer):
    """Add a learned vector to each pixel of a feature map, by its place.

    The vectors are those of a square grid; for a map of another size they are interpolated bilinearly.

    Args:
        grid: Side of the grid.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, C).

    Returns:
        (B, H, W, C), in the layer's compute dtype.

    Raises:
        ValueError: If grid is below 1.

    Reference:
        Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; bilinear as in TransUNet's code.

    Example:
        >>> tuple(PositionEmbedding(grid=4)(np.ones((1, 2, 3, 8), "float32")).shape)
        (1, 2, 3, 8)
    """

    def __init__(self, grid: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if grid < 1:
            raise ValueError(f"PositionEmbedding needs a grid of at least 1. Received: {grid}")
        self.grid = grid

    def build(self, input_shape: Any) -> None:
        normal = keras.initializers.TruncatedNormal(stddev=0.02)
        # The optimizer leaves variables named "bias" out of the weight decay.
        shape = (self.grid, self.grid, input_shape[-1])
        self.positions = self.add_weight(shape=shape, initializer=normal, name="positions_bias")

    def call(self, inputs: Any) -> Any:
        _, height, width, _ = ops.shape(inputs)
        positions = ops.cast(ops.convert_to_tensor(self.positions), "float32")
        positions = ops.tensordot(interpolation(self.grid, height), positions, 1)  # (H, grid, C)
        positions = ops.einsum("wg,hgc->hwc", interpolation(self.grid, width), positions)
        return inputs + ops.cast(positions, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "grid": self.grid}
