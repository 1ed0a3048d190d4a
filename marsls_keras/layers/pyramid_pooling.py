"""Adaptive average pooling: means over a fixed number of bins, for feature maps of any size."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("marsls_keras")
class AdaptivePooling(keras.layers.Layer):
    """Average a feature map of any size over a grid of bins x bins parts.

    Bin i of n along an axis of s pixels reaches from floor(i s / n) to ceil((i + 1) s / n).

    Args:
        bins: Number of parts along each axis; there may be more of them than pixels.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, C).

    Returns:
        (B, bins, bins, C), in the layer's compute dtype.

    Raises:
        ValueError: If bins is below 1.

    Reference:
        Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, section 3.2.

    Example:
        >>> np.array(AdaptivePooling(2)(np.arange(4.0, dtype="float32").reshape(1, 1, 4, 1)))[0, 0, :, 0].tolist()
        [0.5, 2.5]
    """

    def __init__(self, bins: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if bins < 1:
            raise ValueError(f"AdaptivePooling needs at least one bin. Received: {bins}")
        self.bins = bins

    def call(self, inputs: Any) -> Any:
        _, height, width, channels = ops.shape(inputs)
        down, across = (ops.cast(self._means(size), inputs.dtype) for size in (height, width))
        x = ops.matmul(down, ops.reshape(inputs, (-1, height, width * channels)))  # (B, bins, W C)
        x = ops.matmul(across, ops.reshape(x, (-1, width, channels)))  # (B bins, bins, C)
        return ops.reshape(x, (-1, self.bins, self.bins, channels))

    def _means(self, size: Any) -> Any:
        """Return the matrix (bins, size) that averages an axis into bins."""
        number, position = ops.arange(self.bins, dtype="int32")[:, None], ops.arange(size, dtype="int32")[None]
        first, end = number * size // self.bins, -(-(number + 1) * size // self.bins)
        inside = ops.cast(ops.logical_and(position >= first, position < end), "float32")
        return inside / ops.sum(inside, axis=1, keepdims=True)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.bins, self.bins, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bins": self.bins}
