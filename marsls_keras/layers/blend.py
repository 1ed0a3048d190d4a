"""Weighted mean of several feature maps, with one learned weight per map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("marsls_keras")
class Blend(keras.layers.Layer):
    """Average n feature maps with n learned weights that sum to 1.

    The result is Σ w_i x_i with w = softmax(α_1, …, α_(n-1), 0). The α begin at 0, so that the weights begin equal.

    For two maps this is σ(α) x_1 + (1 - σ(α)) x_2, DualSwinFusionSeg's late fusion (section 4.4.5).

    Call arguments:
        inputs: A list of n >= 2 maps, float (B, H, W, C), all of one shape.

    Returns:
        (B, H, W, C), in the layer's compute dtype.

    Example:
        >>> maps = [np.zeros((1, 4, 4, 2), "float32"), np.ones((1, 4, 4, 2), "float32")]
        >>> blended = Blend()(maps)
        >>> tuple(blended.shape), float(blended[0, 0, 0, 0])
        ((1, 4, 4, 2), 0.5)
    """

    def build(self, input_shape: Sequence[tuple[int | None, ...]]) -> None:
        self.alpha = self.add_weight(shape=(len(input_shape) - 1,), initializer="zeros", name="alpha")

    def call(self, inputs: Sequence[Any]) -> Any:
        alpha = ops.convert_to_tensor(self.alpha)
        weights = ops.softmax(ops.concatenate([alpha, ops.zeros((1,), alpha.dtype)]))
        return sum(weights[i] * x for i, x in enumerate(inputs))

    def compute_output_shape(self, input_shape: Sequence[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return tuple(input_shape[0])
