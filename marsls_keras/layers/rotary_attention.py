"""Attention with rotary position embeddings of two dimensions, and a transformer block with it (DINOv3)."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers, ops

from marsls_keras.layers.vision_transformer import TransformerBlock

_LONGEST = 100.0
"""Bound of the periods, in halves of the image's side; the shortest period is 1."""


@keras.saving.register_keras_serializable("marsls_keras")
class RotaryAttention(keras.layers.Layer):
    """Apply multi-head self-attention to tokens of a grid, with queries and keys rotated by the tokens' positions.

    Positions run from -1 to 1 along each side of the grid, so that one image is seen alike at every size. Each of the d
    / 4 frequencies of a head of width d rotates one pair of channels by the row, and one by the column. Class token and
    registers, in front of the tokens of the grid, are not rotated. Keys have no bias: it would not change the softmax.

    Args:
        heads: Number of heads; C must be divisible by 4 * heads.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float tokens (B, prefix + H W, C), and the map (B, H, W, any) that gives the size of the grid.

    Returns:
        (B, prefix + H W, C), in the layer's compute dtype. Angles and softmax are computed in float32.

    Raises:
        ValueError: If heads is below 1, or 4 * heads does not divide C.

    Reference:
        Siméoni et al., "DINOv3", 2025; rotary embeddings of Su et al., "RoFormer", 2021.

    Example:
        >>> tokens, like = np.ones((1, 11, 8), "float32"), np.ones((1, 2, 3, 1), "float32")
        >>> tuple(RotaryAttention(heads=2)([tokens, like]).shape)
        (1, 11, 8)
    """

    def __init__(self, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if heads < 1:
            raise ValueError(f"RotaryAttention needs heads of at least 1. Received: {heads}")
        self.heads = heads

    def build(self, input_shape: Any) -> None:
        channels = input_shape[0][-1]
        if channels % (4 * self.heads):
            raise ValueError(
                f"The number of channels must be divisible by 4 times {self.heads} heads. Received: {channels}"
            )
        initial = keras.initializers.TruncatedNormal(stddev=0.02)
        self.query, self.key, self.value, self.out = (
            layers.Dense(
                channels, use_bias=name != "key", kernel_initializer=initial, dtype=self.dtype_policy, name=name
            )
            for name in ("query", "key", "value", "out")
        )
        for layer in (self.query, self.key, self.value, self.out):
            layer.build((None, channels))

    def call(self, inputs: Any) -> Any:
        x, like = inputs
        _, height, width, _ = ops.shape(like)
        channels = x.shape[-1]
        angles = _angles(height, width, channels // self.heads // 4)  # (H W, d / 2)
        # Those in front have angle 0.
        angles = ops.pad(angles, ((ops.shape(x)[1] - height * width, 0), (0, 0)))[:, None]
        cosine, sine = ops.cos(angles), ops.sin(angles)
        query, key = (self._rotated(self._split(y), cosine, sine) for y in (self.query(x), self.key(x)))
        y = ops.dot_product_attention(query, key, self._split(self.value(x)))  # (B, tokens, heads, d)
        return self.out(ops.reshape(y, ops.shape(x)))

    def _split(self, x: Any) -> Any:
        """Reshape (B, tokens, C) to (B, tokens, heads, d)."""
        return ops.reshape(x, (ops.shape(x)[0], -1, self.heads, x.shape[-1] // self.heads))

    def _rotated(self, x: Any, cosine: Any, sine: Any) -> Any:
        """Rotate channel i of the first half of a head together with channel i of the second."""
        first, second = ops.split(ops.cast(x, "float32"), 2, axis=-1)
        rotated = [first * cosine - second * sine, second * cosine + first * sine]
        return ops.cast(ops.concatenate(rotated, axis=-1), self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads}


def _angles(height: Any, width: Any, frequencies: int) -> Any:
    """Return the angles of the tokens of a grid, float32 (H W, 2 frequencies): those of the rows, then the columns."""
    periods = _LONGEST ** (ops.arange(frequencies, dtype="float32") / frequencies)
    rows, columns = (
        2 * math.pi * (2 * (ops.arange(size, dtype="float32") + 0.5) / ops.cast(size, "float32") - 1)[:, None] / periods
        for size in (height, width)
    )
    return ops.concatenate([ops.repeat(rows, width, axis=0), ops.tile(columns, (height, 1))], axis=1)


@keras.saving.register_keras_serializable("marsls_keras")
class RotaryBlock(TransformerBlock):
    """Apply a `TransformerBlock` whose attention is `RotaryAttention`.

    Args:
        heads: Number of heads.
        drop_path: Probability that a sample skips a branch in training.
        epsilon: Epsilon of the normalisations.
        layer_scale: Initial value of the vectors that scale the branches; None for no vectors.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float tokens (B, prefix + H W, C), and the map (B, H, W, any) that gives the size of the grid.
        training: Whether branches are skipped.

    Returns:
        (B, prefix + H W, C), in the layer's compute dtype.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Siméoni et al., "DINOv3", 2025.

    Example:
        >>> tokens, like = np.ones((1, 11, 8), "float32"), np.ones((1, 2, 3, 1), "float32")
        >>> tuple(RotaryBlock(heads=2, layer_scale=1e-5)([tokens, like]).shape)
        (1, 11, 8)
    """

    def _new_attention(self) -> keras.layers.Layer:
        return RotaryAttention(self.heads, dtype=self.dtype_policy, name="attention")

    def build(self, input_shape: Any) -> None:
        tokens, like = input_shape
        self.attention.build([tokens, like])
        self._build_rest(tokens)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x, like = inputs
        return self._add_branches(x, self.attention([self.norm1(x), like]), training)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return input_shape[0]
