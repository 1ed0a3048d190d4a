"""Segmentation heads without convolution: channel mean as logits, and the mean probability of several masks."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from marsls_keras.layers.resize import bilinear

_LARGEST = 80.0
"""Bound of the logits: beyond it the probability is not a normal float32 number, and its logarithm infinite."""


@keras.saving.register_keras_serializable("marsls_keras")
class ChannelMean(keras.layers.Layer):
    """Average the channels of a feature map to one logit per pixel.

    It is RMAU-Net's head ("a global average pooling layer across the channel dimension", section III.C).

    Args:
        **kwargs: Passed to keras.layers.Layer; with dtype "float32" the mean is computed in it under every policy.

    Call arguments:
        inputs: Float (B, H, W, C).

    Returns:
        (B, H, W, 1), in the layer's compute dtype.

    Example:
        >>> tuple(ChannelMean()(np.ones((1, 4, 4, 8), "float32")).shape)
        (1, 4, 4, 1)
    """

    def call(self, inputs: Any) -> Any:
        return ops.mean(inputs, axis=-1, keepdims=True)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], 1)


@keras.saving.register_keras_serializable("marsls_keras")
class MeanProbability(keras.layers.Layer):
    """Average the probabilities of several masks at the resolution of the image, and return the average as logits.

    Each mask's probabilities are resized bilinearly first.

    The logit is log Σ R(σ(z_i)) - log Σ R(σ(-z_i)), where R resizes. All terms of both sums are positive, so there is
    no cancellation, and the logit is exact for probabilities near 0 and 1. RMAU-Net averages "three predicted output
    masks" (section IV.C): probabilities, not logits.

    Args:
        **kwargs: Passed to keras.layers.Layer; the dtype should be "float32".

    Call arguments:
        masks: List of logits, float (B, h, w, 1) each, of any sizes; clipped to ±80.
        image: (B, H, W, C); only its size is used.

    Returns:
        Logits (B, H, W, 1) in [-80, 80].

    Example:
        >>> masks = [np.full((1, 2, 2, 1), 3.0, "float32"), np.full((1, 8, 8, 1), -3.0, "float32")]
        >>> logits = MeanProbability()(masks, np.zeros((1, 4, 4, 7), "float32"))
        >>> tuple(logits.shape), abs(round(float(logits[0, 0, 0, 0]), 4))  # the mean probability is 0.5
        ((1, 4, 4, 1), 0.0)
    """

    def call(self, masks: list[Any], image: Any) -> Any:
        _, height, width, _ = ops.shape(image)
        landslide, rest = 0.0, 0.0
        for logits in masks:
            logits = ops.clip(logits[..., 0], -_LARGEST, _LARGEST)
            landslide += bilinear(ops.sigmoid(logits), height, width)  # (B, h, w) to (B, H, W)
            rest += bilinear(ops.sigmoid(-logits), height, width)
        return (ops.log(landslide) - ops.log(rest))[..., None]

    def compute_output_shape(
        self, masks_shape: list[Any], image_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (*image_shape[:-1], 1)
