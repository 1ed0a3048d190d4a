"""Learned scale and offset of a whole feature map."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable("marsls_keras")
class LearnableAffine(keras.layers.Layer):
    """Multiply a feature map by one learned number and add another.

    Call arguments:
        inputs: Float of any shape.

    Returns:
        The same shape, in the layer's compute dtype.

    Reference:
        The "learnable affine block" of PP-LCNet's and PP-HGNetV2's small networks (PaddlePaddle).

    Example:
        >>> LearnableAffine()(np.full((1, 2), 3.0, "float32")).numpy().tolist()
        [[3.0, 3.0]]
    """

    def build(self, input_shape: Any) -> None:
        self.gamma = self.add_weight(shape=(1,), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(1,), initializer="zeros", name="beta")

    def call(self, inputs: Any) -> Any:
        return inputs * self.gamma + self.beta

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape
