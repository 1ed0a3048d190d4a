"""Squeeze-and-excitation: a weight for each channel."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("marsls_keras")
class SqueezeExcitation(keras.layers.Layer):
    """Channels weighted by sigmoid(W_2 relu(W_1 m)), where m (C) is their mean over the pixels.

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
        Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, eq. 2-4; with biases, as the authors' code has it.
    """

    def __init__(self, reduction: int = 16, **kwargs: Any) -> None:
        if reduction < 1:
            raise ValueError(f"{type(self).__name__} needs a reduction of at least 1. Received: {reduction}")
        super().__init__(**kwargs)
        self.reduction = reduction

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Make the variables."""
        channels = input_shape[-1]
        hidden = max(1, channels // self.reduction)
        self.squeeze = layers.Dense(hidden, activation="relu", kernel_initializer="he_normal", dtype=self.dtype_policy, name="squeeze")
        self.excite = layers.Dense(channels, dtype=self.dtype_policy, name="excite")
        self.squeeze.build((None, channels))
        self.excite.build((None, hidden))

    def call(self, inputs: Any) -> Any:
        """Return the weighted maps."""
        return inputs * ops.sigmoid(self.score(ops.mean(inputs, axis=(1, 2))))[:, None, None]

    def score(self, pooled: Any) -> Any:
        """Return the weights of pooled channels (B, C), before the sigmoid."""
        return self.excite(self.squeeze(pooled))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "reduction": self.reduction}
