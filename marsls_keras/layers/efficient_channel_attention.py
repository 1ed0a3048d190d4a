"""Efficient channel attention: channel weights from the means of neighbouring channels."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("marsls_keras")
class EfficientChannelAttention(keras.layers.Layer):
    """Weight the channels of a feature map by a 1D convolution along their means.

    The weights are sigmoid(f m), where m (C) is the mean of each channel over the pixels and f a convolution along the
    channels, without bias.

    Args:
        kernel_size: Length of f; by default (log2(C) + 1) / 2 rounded down, or the odd number above if that is even
            (eq. 12).
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, C).

    Returns:
        (B, H, W, C), in the layer's compute dtype.

    Raises:
        ValueError: If kernel_size is below 1.

    Reference:
        Wang et al., "ECA-Net", CVPR 2020, eq. 9 and 12.

    Example:
        >>> layer = EfficientChannelAttention()
        >>> tuple(layer(np.ones((1, 8, 8, 16), "float32")).shape), layer.conv.kernel_size
        ((1, 8, 8, 16), (3,))
    """

    def __init__(self, kernel_size: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if kernel_size is not None and kernel_size < 1:
            raise ValueError(f"EfficientChannelAttention needs a kernel_size of at least 1. Received: {kernel_size}")
        self.kernel_size = kernel_size

    def build(self, input_shape: Any) -> None:
        size = self.kernel_size or int(math.log2(input_shape[-1]) / 2 + 0.5) // 2 * 2 + 1
        self.conv = layers.Conv1D(1, size, padding="same", use_bias=False, dtype=self.dtype_policy, name="conv")
        self.conv.build((None, input_shape[-1], 1))

    def call(self, inputs: Any) -> Any:
        scores = self.conv(ops.mean(inputs, axis=(1, 2))[..., None])  # (B, C, 1)
        return inputs * ops.sigmoid(scores)[:, None, None, :, 0]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kernel_size": self.kernel_size}
