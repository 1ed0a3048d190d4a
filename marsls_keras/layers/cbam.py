"""Convolutional block attention module: channel attention, then spatial attention."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from marsls_keras.layers.squeeze_excitation import SqueezeExcitation


@keras.saving.register_keras_serializable("marsls_keras")
class CBAM(SqueezeExcitation):
    """Weight the channels of a feature map, then its pixels (convolutional block attention).

    Channels are weighted by sigmoid(MLP(mean) + MLP(max)), then pixels by sigmoid(f [mean, max]).

    The MLP is that of squeeze-and-excitation and gets the mean and the maximum over the pixels; f is a convolution of
    the mean and the maximum over the channels.

    Args:
        reduction: The MLP's hidden layer has C / reduction channels, rounded down and at least 1; 16 in the paper.
        kernel_size: Side of the kernel of f; 7 in the paper.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, C).

    Returns:
        (B, H, W, C), in the layer's compute dtype.

    Raises:
        ValueError: If an argument is below 1.

    Reference:
        Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018, eq. 1-3. f has no bias, and no
        normalisation: the paper has none, its code has one.

    Example:
        >>> layer = CBAM(reduction=4)
        >>> tuple(layer(np.ones((1, 8, 8, 16), "float32")).shape)
        (1, 8, 8, 16)
    """

    def __init__(self, reduction: int = 16, kernel_size: int = 7, **kwargs: Any) -> None:
        super().__init__(reduction, **kwargs)
        if kernel_size < 1:
            raise ValueError(f"CBAM needs a kernel_size of at least 1. Received: {kernel_size}")
        self.kernel_size = kernel_size
        self.spatial = layers.Conv2D(
            1, kernel_size, padding="same", use_bias=False, dtype=self.dtype_policy, name="spatial"
        )

    def build(self, input_shape: tuple[Any, ...]) -> None:
        super().build(input_shape)
        self.spatial.build((*input_shape[:-1], 2))

    def call(self, inputs: Any) -> Any:
        scores = self.score(ops.mean(inputs, axis=(1, 2))) + self.score(ops.max(inputs, axis=(1, 2)))  # (B, C)
        maps = inputs * ops.sigmoid(scores)[:, None, None]
        pooled = ops.stack([ops.mean(maps, axis=-1), ops.max(maps, axis=-1)], axis=-1)  # (B, H, W, 2)
        return maps * ops.sigmoid(self.spatial(pooled))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kernel_size": self.kernel_size}
