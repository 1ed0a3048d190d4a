"""Gated fusion: a weighted mean of several feature maps, with weights for each pixel and channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("marsls_keras")
class Gate(keras.layers.Layer):
    """Average n feature maps with weights for each pixel and channel, predicted from all maps by a 1 x 1 convolution.

    The result is Σ w_i x_i, with weights w (B, H, W, n, C) = softmax over i of a 1 x 1 convolution of the concatenated
    maps.

    For two maps this is x_2 + σ(g) (x_1 - x_2), a sigmoid gate with g linear in both. DualSwinFusionSeg's Table 3 names
    a "gated cross-modal fusion" and tells no more of it.

    Call arguments:
        inputs: A list of n >= 2 maps, float (B, H, W, C), all of one shape.

    Returns:
        (B, H, W, C), in the layer's compute dtype.

    Example:
        >>> maps = [np.zeros((1, 4, 4, 2), "float32"), np.ones((1, 4, 4, 2), "float32")]
        >>> fused = Gate()(maps)
        >>> tuple(fused.shape), bool(np.all((fused > 0) & (fused < 1)))
        ((1, 4, 4, 2), True)
    """

    def build(self, input_shape: Any) -> None:
        together = len(input_shape) * input_shape[0][-1]
        self.conv = layers.Conv2D(together, 1, dtype=self.dtype_policy, name="conv")
        self.conv.build((*input_shape[0][:3], together))

    def call(self, inputs: Sequence[Any]) -> Any:
        batch, height, width, channels = ops.shape(inputs[0])
        scores = self.conv(ops.concatenate(list(inputs), axis=-1))  # (B, H, W, n C)
        weights = ops.softmax(ops.reshape(scores, (batch, height, width, len(inputs), channels)), axis=3)
        return sum(weights[:, :, :, i] * x for i, x in enumerate(inputs))

    def compute_output_shape(self, input_shape: Sequence[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return tuple(input_shape[0])
