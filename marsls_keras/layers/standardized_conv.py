"""Convolution with a standardised kernel, as ResNets with group normalisation have it."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

_EPSILON = 1e-5


@keras.saving.register_keras_serializable("marsls_keras")
class StandardizedConv2D(keras.layers.Conv2D):
    """Convolve with a kernel whose values have mean 0 and variance 1 for each filter (weight standardisation).

    The stored kernel is free; before each convolution it becomes (w - mean) / sqrt(variance + 1e-5), over height, width
    and channels of each filter, in float32. Arguments are those of `keras.layers.Conv2D`.

    Call arguments:
        inputs: Float (B, H, W, C).

    Returns:
        (B, H', W', filters), in the layer's compute dtype.

    Reference:
        Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization", 2019.

    Example:
        >>> layer = StandardizedConv2D(4, 3, padding="same", use_bias=False)
        >>> tuple(layer(np.ones((1, 8, 8, 2), "float32")).shape)
        (1, 8, 8, 4)
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Return the convolution of the inputs with the standardised kernel."""
        # The stored kernel, since that of a call is rounded under mixed precision.
        weights = ops.convert_to_tensor(self.kernel.value)
        mean, variance = ops.moments(weights, axes=(0, 1, 2), keepdims=True)
        weights = (weights - mean) * ops.rsqrt(variance + _EPSILON)
        return super().convolution_op(inputs, ops.cast(weights, kernel.dtype))
