"""Parts of a plain vision transformer: tokens with position embeddings, transformer blocks, and tokens to a map."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from marsls_keras.layers.drop_path import DropPath
from marsls_keras.layers.mix_transformer import ReducedAttention

_CUBIC = {False: -0.75, True: -0.5}
"""Slope of the cubic kernel without and with antialiasing, as in PyTorch; Keras' own has -0.5 and repeats no edges."""


def _normal() -> keras.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.02)


@keras.saving.register_keras_serializable("marsls_keras")
class PrefixedTokens(keras.layers.Layer):
    """Flatten a feature map to tokens, and prepend a class token and register tokens.

    Registers are learned tokens that stand for nothing in the image; attention uses them as memory.

    Args:
        registers: Number R of register tokens.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, C).

    Returns:
        (B, 1 + R + H W, C), in the layer's compute dtype.

    Raises:
        ValueError: If registers is below 0.

    Reference:
        Darcet et al., "Vision Transformers Need Registers", ICLR 2024.

    Example:
        >>> tuple(PrefixedTokens(registers=4)(np.ones((1, 2, 3, 8), "float32")).shape)
        (1, 11, 8)
    """

    def __init__(self, registers: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if registers < 0:
            raise ValueError(f"The number of registers must not be negative. Received: {registers}")
        self.registers = registers

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        # The optimizer leaves variables named "bias" out of the weight decay.
        self.class_token = self.add_weight(shape=(1, 1, channels), initializer=_normal(), name="class_token_bias")
        if self.registers:
            self.register_tokens = self.add_weight(
                shape=(1, self.registers, channels), initializer=_normal(), name="registers_bias"
            )

    def call(self, inputs: Any) -> Any:
        number, _, _, channels = ops.shape(inputs)
        parts = [self._class_token()]
        if self.registers:
            parts.append(ops.convert_to_tensor(self.register_tokens))
        prefix = [ops.broadcast_to(x, (number, x.shape[1], channels)) for x in parts]
        return ops.concatenate([*prefix, ops.reshape(self._patches(inputs), (number, -1, channels))], axis=1)

    def _class_token(self) -> Any:
        """Return the class token (1, 1, C)."""
        return ops.convert_to_tensor(self.class_token)

    def _patches(self, inputs: Any) -> Any:
        """Return the map (B, H, W, C) that is flattened."""
        return inputs

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        number, height, width, channels = input_shape
        return (number, None if height is None or width is None else 1 + self.registers + height * width, channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "registers": self.registers}


@keras.saving.register_keras_serializable("marsls_keras")
class PositionedTokens(PrefixedTokens):
    """Flatten a feature map to tokens, add position embeddings, and prepend a class token and register tokens.

    The embeddings are those of a square grid; for a map of another size they are interpolated bicubically. Registers
    have none.

    Args:
        grid: Side of the grid.
        registers: Number R of register tokens.
        antialias: Whether the interpolation averages over the area of a token where the map is smaller than the grid.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, C).

    Returns:
        (B, 1 + R + H W, C), in the layer's compute dtype.

    Raises:
        ValueError: If grid is below 1, or registers below 0.

    Reference:
        Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021.

    Example:
        >>> tuple(PositionedTokens(grid=4)(np.ones((1, 2, 3, 8), "float32")).shape)
        (1, 7, 8)
    """

    def __init__(self, grid: int = 14, registers: int = 0, antialias: bool = False, **kwargs: Any) -> None:
        super().__init__(registers, **kwargs)
        if grid < 1:
            raise ValueError(f"PositionedTokens needs a grid of at least 1. Received: {grid}")
        self.grid, self.antialias = grid, antialias

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.positions = self.add_weight(
            shape=(1, 1 + self.grid**2, input_shape[-1]), initializer=_normal(), name="positions_bias"
        )

    def _class_token(self) -> Any:
        return ops.convert_to_tensor(self.class_token) + ops.convert_to_tensor(self.positions)[:, :1]

    def _patches(self, inputs: Any) -> Any:
        _, height, width, channels = ops.shape(inputs)
        positions = ops.cast(ops.convert_to_tensor(self.positions)[0, 1:], "float32")
        square = ops.reshape(positions, (self.grid, self.grid, channels))
        # At the grid's own size the interpolation changes nothing.
        square = ops.tensordot(cubic_matrix(self.grid, height, self.antialias), square, 1)  # (H, grid, C)
        square = ops.einsum("wg,hgc->hwc", cubic_matrix(self.grid, width, self.antialias), square)
        return inputs + ops.cast(square, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "grid": self.grid, "antialias": self.antialias}


def cubic_matrix(inputs: int, outputs: Any, antialias: bool = False) -> Any:
    """Return the matrix of one-dimensional cubic interpolation, as PyTorch computes it; pixels are areas.

    Args:
        inputs: Number of values that are interpolated.
        outputs: Number of results, an int or an integer scalar of the backend.
        antialias: False: four taps for each result, and edges are repeated. True: the kernel is as wide as a result
            where there are fewer results than values, and taps outside are left out.

    Returns:
        float32 (outputs, inputs).

    Example:
        >>> bool(np.allclose(cubic_matrix(3, 3), np.eye(3)))
        True
        >>> np.asarray(cubic_matrix(4, 2, antialias=True)).sum(axis=1).tolist()
        [1.0, 1.0]
    """
    step = inputs / ops.cast(outputs, "float32")
    places = (ops.arange(outputs, dtype="float32") + 0.5) * step - 0.5
    if antialias:
        distance = (places[:, None] - ops.arange(inputs, dtype="float32")) / ops.maximum(step, 1.0)
        weights = _cubic_kernel(ops.abs(distance), antialias)
        return weights / ops.sum(weights, axis=1, keepdims=True)
    before = ops.floor(places)
    matrix: Any = 0.0
    for tap in (-1, 0, 1, 2):
        index = ops.cast(ops.clip(before + tap, 0, inputs - 1), "int32")
        weights = _cubic_kernel(ops.abs(places - before - tap), antialias)
        matrix = matrix + ops.one_hot(index, inputs, dtype="float32") * weights[:, None]
    return matrix


def _cubic_kernel(distance: Any, antialias: bool) -> Any:
    """Return the weights of taps at distances of at least 0."""
    slope = _CUBIC[antialias]
    near = ((slope + 2) * distance - (slope + 3)) * distance**2 + 1
    far = slope * (((distance - 5) * distance + 8) * distance - 4)
    return ops.where(distance <= 1, near, ops.where(distance < 2, far, 0.0))


@keras.saving.register_keras_serializable("marsls_keras")
class TokensToMap(keras.layers.Layer):
    """Reshape tokens to a feature map, without the class token and the registers in front.

    Call arguments:
        inputs: Float tokens (B, prefix + H W, C), and the map (B, H, W, any) that gives the size.

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
        return ops.reshape(tokens[:, -height * width :], (number, height, width, tokens.shape[-1]))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (*input_shape[1][:-1], input_shape[0][-1])


@keras.saving.register_keras_serializable("marsls_keras")
class TransformerBlock(keras.layers.Layer):
    """Apply a pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)), under stochastic depth.

    The MLP is 4 C wide with an exact GELU. With `layer_scale` each branch is multiplied by a learned vector
    ("LayerScale").

    Args:
        heads: Number of heads.
        drop_path: Probability that a sample skips a branch in training.
        epsilon: Epsilon of the normalisations.
        layer_scale: Initial value of the vectors that scale the branches; None for no vectors.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, tokens, C).
        training: Whether branches are skipped.

    Returns:
        (B, tokens, C), in the layer's compute dtype.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; LayerScale of Touvron et al., "Going deeper with
        Image Transformers", ICCV 2021.

    Example:
        >>> tuple(TransformerBlock(heads=2)(np.ones((1, 7, 8), "float32")).shape)
        (1, 7, 8)
    """

    def __init__(
        self,
        heads: int,
        drop_path: float = 0.0,
        epsilon: float = 1e-12,
        layer_scale: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads, self.drop_path, self.epsilon, self.layer_scale = heads, drop_path, epsilon, layer_scale
        policy = self.dtype_policy
        self.attention = self._new_attention()
        names = ("layernorm_before", "layernorm_after")
        self.norm1, self.norm2 = (layers.LayerNormalization(epsilon=epsilon, dtype=policy, name=name) for name in names)
        self.skip1, self.skip2 = (DropPath(drop_path, dtype=policy, name=f"drop_path{i}") for i in (1, 2))

    def _new_attention(self) -> keras.layers.Layer:
        return ReducedAttention(self.heads, dtype=self.dtype_policy, name="attention")

    def build(self, input_shape: Any) -> None:
        self.attention.build(input_shape)
        self._build_rest(input_shape)

    def _build_rest(self, input_shape: Any) -> None:
        """Build what is not the attention."""
        channels, policy = input_shape[-1], self.dtype_policy
        for layer in (self.norm1, self.norm2):
            layer.build(input_shape)
        self.fc1 = layers.Dense(4 * channels, kernel_initializer=_normal(), dtype=policy, name="intermediate")
        self.fc2 = layers.Dense(channels, kernel_initializer=_normal(), dtype=policy, name="output")
        self.fc1.build((None, channels))
        self.fc2.build((None, 4 * channels))
        if self.layer_scale is not None:
            initial = keras.initializers.Constant(self.layer_scale)
            self.scale1, self.scale2 = (
                self.add_weight(shape=(channels,), initializer=initial, name=f"scale{i}_gamma") for i in (1, 2)
            )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self._add_branches(inputs, self.attention(self.norm1(inputs)), training)

    def _add_branches(self, x: Any, attended: Any, training: bool | None) -> Any:
        """Add the attention's output to tokens, and then that of the MLP."""
        scaled = self.layer_scale is not None
        x = x + self.skip1(attended * self.scale1 if scaled else attended, training=training)
        branch = self.fc2(ops.gelu(self.fc1(self.norm2(x)), approximate=False))
        return x + self.skip2(branch * self.scale2 if scaled else branch, training=training)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {
            "heads": self.heads,
            "drop_path": self.drop_path,
            "epsilon": self.epsilon,
            "layer_scale": self.layer_scale,
        }
        return {**super().get_config(), **own}
