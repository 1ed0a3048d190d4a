"""Upsample feature maps by two, bilinearly, at sizes that may be known only when the graph runs."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("marsls_keras")
class UpsampleBilinear(keras.layers.Layer):
    """Double height and width of a feature map by bilinear interpolation.

    Pixel centres lie at half-integers, so each output pixel is 3/4 of the nearest input pixel and 1/4 of the next one;
    at the border the outermost pixel is repeated. The result equals that of `keras.layers.UpSampling2D(2,
    interpolation="bilinear")`, which fails in a TensorFlow graph whose sizes are unknown: Keras traces such a graph as
    soon as a model predicts images of several sizes.

    Call arguments:
        inputs: Float (B, H, W, C).

    Returns:
        (B, 2 H, 2 W, C), in the layer's compute dtype.

    Example:
        >>> UpsampleBilinear()(np.array([0.0, 1.0], "float32").reshape(1, 1, 2, 1))[0, 0, :, 0].numpy().tolist()
        [0.0, 0.25, 0.75, 1.0]
    """

    def call(self, inputs: Any) -> Any:
        _, height, width, channels = ops.shape(inputs)
        rows = ops.reshape(self._between(inputs, 1), (-1, 2 * height, width, channels))
        columns = self._between(rows, 2)
        return ops.reshape(columns, (-1, 2 * height, 2 * width, channels))

    @staticmethod
    def _between(x: Any, axis: int) -> Any:
        """Return each pixel's two output pixels along an axis, stacked in a new axis behind it."""
        first, inner_first = (x[:, :1], x[:, :-1]) if axis == 1 else (x[:, :, :1], x[:, :, :-1])
        last, inner_last = (x[:, -1:], x[:, 1:]) if axis == 1 else (x[:, :, -1:], x[:, :, 1:])
        before = ops.concatenate([first, inner_first], axis=axis)
        after = ops.concatenate([inner_last, last], axis=axis)
        return ops.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis=axis + 1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, channels = input_shape
        return batch, height and 2 * height, width and 2 * width, channels
