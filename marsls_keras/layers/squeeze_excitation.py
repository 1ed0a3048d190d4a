"""Squeeze-and-excitation: channel attention from the means of all channels."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("marsls_keras")
class SqueezeExcitation(keras.layers.Layer):
    """Weight the channels of a feature map by a two-layer MLP on their means.

    The weights are sigmoid(W_2 relu(W_1 m)), where m (C) is the mean of each channel over the pixels.

    Args:
        reduction: W_1 maps the C channels to C / reduction, rounded down and at least 1; 16 in the paper.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, C).

    Returns:
        (B, H, W, C), in the layer's compute dtype.

    Raises:
        ValueError: If reduction is below 1.

    Reference:
        Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, eq. 2-4; with biases, as in the authors' code.

    Example:
        >>> layer = SqueezeExcitation(reduction=4)
        >>> tuple(layer(np.ones((1, 8, 8, 16), "float32")).shape)
        (1, 8, 8, 16)
        >>> layer.squeeze.units  # 16 / 4
        4
    """

    def __init__(self, reduction: int = 16, **kwargs: Any) -> None:
        if reduction < 1:
            raise ValueError(f"{type(self).__name__} needs a reduction of at least 1. Received: {reduction}")
        super().__init__(**kwargs)
        self.reduction = reduction

    def build(self, input_shape: tuple[Any, ...]) -> None:
        channels = input_shape[-1]
        hidden = max(1, channels // self.reduction)
        self.squeeze = layers.Dense(
            hidden, activation="relu", kernel_initializer="he_normal", dtype=self.dtype_policy, name="squeeze"
        )
        self.excite = layers.Dense(channels, dtype=self.dtype_policy, name="excite")
        self.squeeze.build((None, channels))
        self.excite.build((None, hidden))

    def call(self, inputs: Any) -> Any:
        return inputs * ops.sigmoid(self.score(ops.mean(inputs, axis=(1, 2))))[:, None, None]

    def score(self, pooled: Any) -> Any:
        """Return the channel weights before the sigmoid, (B, C), from pooled channels (B, C)."""
        return self.excite(self.squeeze(pooled))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "reduction": self.reduction}
