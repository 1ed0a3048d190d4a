"""Resize a feature map to the height and width of another."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from marsls_keras.layers.resize import interpolation


@keras.saving.register_keras_serializable("marsls_keras")
class ResizeLike(keras.layers.Layer):
    """Resize a feature map bilinearly to the height and width of a reference.

    Without antialiasing. Two products with sparse matrices, so that sizes may be unknown while the graph is built, and
    every backend and XLA has the gradient.

    Args:
        align_corners: Whether the corner pixels of both maps have the same places, as in the code of PSPNet and
            DeepLab; else pixel centres lie at half-integers.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, h, w, C).
        reference: (B, H, W, any); only its size is used.

    Returns:
        (B, H, W, C), in the layer's compute dtype.

    Example:
        >>> maps, reference = np.ones((1, 4, 4, 2), "float32"), np.ones((1, 8, 6, 1), "float32")
        >>> tuple(ResizeLike()(maps, reference).shape)
        (1, 8, 6, 2)
    """

    def __init__(self, align_corners: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.align_corners = align_corners

    def call(self, inputs: Any, reference: Any) -> Any:
        _, h, w, channels = ops.shape(inputs)
        _, height, width, _ = ops.shape(reference)
        down = ops.cast(interpolation(h, height, self.align_corners), inputs.dtype)
        across = ops.cast(interpolation(w, width, self.align_corners), inputs.dtype)
        x = ops.matmul(down, ops.reshape(inputs, (-1, h, w * channels)))  # (B, H, w C)
        x = ops.matmul(across, ops.reshape(x, (-1, w, channels)))  # (B H, W, C)
        return ops.reshape(x, (-1, height, width, channels))

    def compute_output_shape(
        self, inputs_shape: tuple[int | None, ...], reference_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (*reference_shape[:3], inputs_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "align_corners": self.align_corners}
