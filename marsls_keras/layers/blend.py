"""A weighted mean of several maps, with learned weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("marsls_keras")
class Blend(keras.layers.Layer):
    """Σ w_i x_i, with weights w = softmax(α_1, …, α_(n-1), 0) that are learned and begin equal.

    For two maps this is σ(α) x_1 + (1 - σ(α)) x_2, DualSwinFusionSeg's late fusion (section 4.4.5).

    Call arguments:
        inputs: A list of n >= 2 maps, float (B, H, W, C), all of one shape.

    Returns:
        (B, H, W, C), in the layer's compute dtype.
    """

    def build(self, input_shape: Sequence[tuple[int | None, ...]]) -> None:
        """Make the variable."""
        self.alpha = self.add_weight(shape=(len(input_shape) - 1,), initializer="zeros", name="alpha")

    def call(self, inputs: Sequence[Any]) -> Any:
        """Return the weighted mean."""
        alpha = ops.convert_to_tensor(self.alpha)
        weights = ops.softmax(ops.concatenate([alpha, ops.zeros((1,), alpha.dtype)]))
        return sum(weights[i] * x for i, x in enumerate(inputs))

    def compute_output_shape(self, input_shape: Sequence[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """Return the shape of the first map."""
        return tuple(input_shape[0])
