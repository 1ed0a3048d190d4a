"""Patch expanding: one token becomes several, the inverse of patch merging."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("marsls_keras")
class PatchExpanding(keras.layers.Layer):
    """Expand each token to factor x factor tokens: a linear map without bias, a reshape, and LayerNorm.

    Args:
        factor: Factor of height and width.
        channels: Channels of the tokens afterwards.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, C).

    Returns:
        (B, factor H, factor W, channels), in the layer's compute dtype.

    Raises:
        ValueError: If an argument is below 1.

    Reference:
        Cao et al., "Swin-Unet: Unet-like Pure Transformer for Medical Image Segmentation", 2021, section 3.4.

    Example:
        >>> tuple(PatchExpanding(2, 4)(np.ones((1, 3, 5, 8), "float32")).shape)
        (1, 6, 10, 4)
    """

    def __init__(self, factor: int, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if factor < 1 or channels < 1:
            raise ValueError(
                "PatchExpanding needs factor and channels of at least 1. "
                f"Received: factor={factor}, channels={channels}"
            )
        self.factor, self.channels = factor, channels
        normal = keras.initializers.TruncatedNormal(stddev=0.02)
        self.expand = layers.Dense(
            factor**2 * channels, use_bias=False, kernel_initializer=normal, dtype=self.dtype_policy, name="expand"
        )
        self.norm = layers.LayerNormalization(epsilon=1e-5, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: Any) -> None:
        self.expand.build(input_shape)
        self.norm.build((*input_shape[:-1], self.channels))

    def call(self, inputs: Any) -> Any:
        _, height, width, _ = ops.shape(inputs)
        x = ops.reshape(self.expand(inputs), (-1, height, width, self.factor, self.factor, self.channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))  # (B, H, factor, W, factor, C)
        return self.norm(ops.reshape(x, (-1, height * self.factor, width * self.factor, self.channels)))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        number, height, width, _ = input_shape
        return number, height and self.factor * height, width and self.factor * width, self.channels

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor, "channels": self.channels}
