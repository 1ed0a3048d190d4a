"""Parts of a plain vision transformer: tokens with position embeddings, transformer blocks, and tokens to a map."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from marsls_keras.layers.drop_path import DropPath
from marsls_keras.layers.mix_transformer import ReducedAttention

_CUBIC = -0.75
"""Slope of the cubic kernel, as in PyTorch; Keras' own has -0.5."""


def _normal() -> keras.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.02)


@keras.saving.register_keras_serializable("marsls_keras")
class PositionedTokens(keras.layers.Layer):
    """Flatten a feature map to tokens, add position embeddings and prepend a class token.

    The embeddings are those of a square grid; for a map of another size they are interpolated bicubically.

    Args:
        grid: Side of the grid.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, C).

    Returns:
        (B, 1 + H W, C), in the layer's compute dtype.

    Raises:
        ValueError: If grid is below 1.

    Reference:
        Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021.

    Example:
        >>> tuple(PositionedTokens(grid=4)(np.ones((1, 2, 3, 8), "float32")).shape)
        (1, 7, 8)
    """

    def __init__(self, grid: int = 14, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if grid < 1:
            raise ValueError(f"PositionedTokens needs a grid of at least 1. Received: {grid}")
        self.grid = grid

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        # The optimizer leaves variables named "bias" out of the weight decay.
        self.class_token = self.add_weight(shape=(1, 1, channels), initializer=_normal(), name="class_token_bias")
        self.positions = self.add_weight(
            shape=(1, 1 + self.grid**2, channels), initializer=_normal(), name="positions_bias"
        )

    def call(self, inputs: Any) -> Any:
        number, height, width, channels = ops.shape(inputs)
        positions = ops.convert_to_tensor(self.positions)
        square = ops.reshape(ops.cast(positions[0, 1:], "float32"), (self.grid, self.grid, channels))
        # At the grid's own size the interpolation changes nothing.
        square = ops.tensordot(_cubic(self.grid, height), square, 1)  # (H, grid, C)
        square = ops.einsum("wg,hgc->hwc", _cubic(self.grid, width), square)
        tokens = ops.reshape(inputs + ops.cast(square, inputs.dtype), (number, -1, channels))
        first = ops.broadcast_to(ops.convert_to_tensor(self.class_token) + positions[:, :1], (number, 1, channels))
        return ops.concatenate([first, tokens], axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        number, height, width, channels = input_shape
        return (number, None if height is None or width is None else 1 + height * width, channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "grid": self.grid}


def _cubic(inputs: int, outputs: Any) -> Any:
    """Return the matrix (outputs, inputs) of cubic interpolation; pixels are areas, and edges are repeated."""
    places = (ops.arange(outputs, dtype="float32") + 0.5) * (inputs / ops.cast(outputs, "float32")) - 0.5
    before = ops.floor(places)
    matrix: Any = 0.0
    for tap in (-1, 0, 1, 2):
        distance = ops.abs(places - before - tap)
        near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1
        far = _CUBIC * (((distance - 5) * distance + 8) * distance - 4)
        index = ops.cast(ops.clip(before + tap, 0, inputs - 1), "int32")
        matrix = matrix + ops.one_hot(index, inputs, dtype="float32") * ops.where(distance <= 1, near, far)[:, None]
    return matrix


@keras.saving.register_keras_serializable("marsls_keras")
class TokensToMap(keras.layers.Layer):
    """Reshape tokens to a feature map, without the class token.

    Call arguments:
        inputs: Float tokens (B, 1 + H W, C), and the map (B, H, W, any) that gives the size.

    Returns:
        (B, H, W, C).

    Example:
        >>> tokens, like = np.ones((1, 7, 8), "float32"), np.ones((1, 2, 3, 1), "float32")
        >>> tuple(TokensToMap()([tokens, like]).shape)
        (1, 2, 3, 8)
    """

    def call(self, inputs: Any) -> Any:
        tokens, like = inputs
        number, height, width, _ = ops.shape(like)
        return ops.reshape(tokens[:, 1:], (number, height, width, tokens.shape[-1]))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (*input_shape[1][:-1], input_shape[0][-1])


@keras.saving.register_keras_serializable("marsls_keras")
class TransformerBlock(keras.layers.Layer):
    """Apply a pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)), under stochastic depth.

    The MLP is 4 C wide with an exact GELU.

    Args:
        heads: Number of heads.
        drop_path: Probability that a sample skips a branch in training.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, tokens, C).
        training: Whether branches are skipped.

    Returns:
        (B, tokens, C), in the layer's compute dtype.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021.

    Example:
        >>> tuple(TransformerBlock(heads=2)(np.ones((1, 7, 8), "float32")).shape)
        (1, 7, 8)
    """

    def __init__(self, heads: int, drop_path: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads, self.drop_path = heads, drop_path
        policy = self.dtype_policy
        self.attention = ReducedAttention(heads, dtype=policy, name="attention")
        names = ("layernorm_before", "layernorm_after")
        self.norm1, self.norm2 = (layers.LayerNormalization(epsilon=1e-12, dtype=policy, name=name) for name in names)
        self.skip1, self.skip2 = (DropPath(drop_path, dtype=policy, name=f"drop_path{i}") for i in (1, 2))

    def build(self, input_shape: Any) -> None:
        channels, policy = input_shape[-1], self.dtype_policy
        for layer in (self.attention, self.norm1, self.norm2):
            layer.build(input_shape)
        self.fc1 = layers.Dense(4 * channels, kernel_initializer=_normal(), dtype=policy, name="intermediate")
        self.fc2 = layers.Dense(channels, kernel_initializer=_normal(), dtype=policy, name="output")
        self.fc1.build((None, channels))
        self.fc2.build((None, 4 * channels))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x = inputs + self.skip1(self.attention(self.norm1(inputs)), training=training)
        branch = self.fc2(ops.gelu(self.fc1(self.norm2(x)), approximate=False))
        return x + self.skip2(branch, training=training)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads, "drop_path": self.drop_path}
