"""Blocks of Swin Transformer V2: windowed cosine attention with a continuous relative position bias."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers, ops

from marsls_keras.layers.drop_path import DropPath
from marsls_keras.layers.window_partition import (
    Axis,
    add_bias,
    attention_mask,
    in_windows,
    relative_coordinates,
    relative_position_index,
    window_partition,
    window_reverse,
)

_HIDDEN = 512
"""Width of the hidden layer of the position bias."""


def _normal() -> keras.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.02)


@keras.saving.register_keras_serializable("marsls_keras")
class WindowAttention(keras.layers.Layer):
    """Apply multi-head cosine self-attention within (shifted) windows, with a continuous relative position bias.

    softmax(τ cos(q, k) + b) v for each head, with τ = min(exp(logit_scale), 100) and b = 16 sigmoid(MLP(Δ)) of the
    log-spaced difference Δ of the two positions. Queries and values have a bias. Keys have none: it would not change
    the softmax of plain attention.

    Grids may have any size. Along each axis a window larger than the grid is clamped to it and not shifted; a grid that
    is not a multiple of the window is padded at the bottom and right. Pairs of rolled tokens and padding are masked.
    The only difference to timm is that timm does not mask padding.

    Args:
        heads: Number of heads, a divisor of the number C of channels.
        window: Side of the windows in tokens.
        shift: How far the windows are shifted, from 0 to below window.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, C).

    Returns:
        (B, H, W, C), in the layer's compute dtype. The softmax is computed in float32.

    Raises:
        ValueError: If an argument is out of range, or heads does not divide C.

    Reference:
        Liu et al., "Swin Transformer V2", CVPR 2022, eq. 2-5.

    Example:
        >>> layer = WindowAttention(heads=2, window=4, shift=2)
        >>> tuple(layer(np.ones((1, 8, 8, 4), "float32")).shape)
        (1, 8, 8, 4)
    """

    def __init__(self, heads: int, window: int = 8, shift: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if heads < 1 or window < 1 or not 0 <= shift < window:
            raise ValueError(
                "WindowAttention needs heads and window of at least 1 and a shift from 0 to below window. "
                f"Received: heads={heads}, window={window}, shift={shift}"
            )
        self.heads, self.window, self.shift = heads, window, shift

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        if channels is None or channels % self.heads:
            raise ValueError(f"The number of channels must be divisible by {self.heads} heads. Received: {channels}")
        options: dict[str, Any] = {"kernel_initializer": _normal(), "dtype": self.dtype_policy}
        self.qkv = layers.Dense(3 * channels, use_bias=False, name="qkv", **options)
        self.q_bias = self.add_weight(shape=(channels,), initializer="zeros", name="q_bias")
        self.v_bias = self.add_weight(shape=(channels,), initializer="zeros", name="v_bias")
        self.logit_scale = self.add_weight(
            shape=(self.heads, 1, 1),
            initializer=keras.initializers.Constant(math.log(10)),
            autocast=False,
            name="logit_scale",
        )
        # In float32, as the scores it is added to.
        self.cpb_mlp_0 = layers.Dense(_HIDDEN, "relu", kernel_initializer=_normal(), dtype="float32", name="cpb_mlp_0")
        self.cpb_mlp_2 = layers.Dense(
            self.heads, use_bias=False, kernel_initializer=_normal(), dtype="float32", name="cpb_mlp_2"
        )
        self.proj = layers.Dense(channels, name="proj", **options)
        for layer, width in (
            (self.qkv, channels),
            (self.cpb_mlp_0, 2),
            (self.cpb_mlp_2, _HIDDEN),
            (self.proj, channels),
        ):
            layer.build((None, width))

    def call(self, inputs: Any) -> Any:
        _, height, width, _ = ops.shape(inputs)
        rows, columns = (Axis.clamped(size, self.window, self.shift) for size in (height, width))
        return self.proj(in_windows(inputs, rows, columns, lambda x: self._attend(x, rows, columns)))

    def _attend(self, x: Any, rows: Axis, columns: Axis) -> Any:
        """Apply attention, without the last projection, to maps whose sides are multiples of the windows."""
        q_bias, v_bias = ops.convert_to_tensor(self.q_bias), ops.convert_to_tensor(self.v_bias)
        x = self.qkv(x) + ops.concatenate([q_bias, ops.zeros_like(q_bias), v_bias])  # (B, H, W, 3 C)
        x = window_partition(x, rows, columns, 3 * self.heads)  # (3 heads, B windows, tokens, C / heads)
        q, k, v = ops.split(x, 3)
        scale = ops.exp(ops.minimum(ops.convert_to_tensor(self.logit_scale), math.log(100)))[
            :, None
        ]  # (heads, 1, 1, 1)
        q = _unit(q) * ops.cast(scale, self.compute_dtype)
        scores = ops.cast(
            ops.matmul(q, ops.swapaxes(_unit(k), -1, -2)), "float32"
        )  # (heads, B windows, tokens, tokens)
        scores = add_bias(scores, self._bias(rows, columns), attention_mask(rows, columns))
        weights = ops.cast(ops.softmax(scores), self.compute_dtype)
        return window_reverse(ops.matmul(weights, v), rows, columns)

    def _bias(self, rows: Axis, columns: Axis) -> Any:
        """Return the position bias, float32 (heads, 1, tokens, tokens)."""
        table = 16 * ops.sigmoid(
            self.cpb_mlp_2(self.cpb_mlp_0(relative_coordinates(rows, columns)))
        )  # (differences, heads)
        return ops.take(ops.transpose(table), relative_position_index(rows, columns), axis=1)[:, None]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads, "window": self.window, "shift": self.shift}


def _unit(vectors: Any) -> Any:
    """Scale vectors to length 1, in float32."""
    x = ops.cast(vectors, "float32")
    return ops.cast(x * ops.rsqrt(ops.maximum(ops.sum(x * x, axis=-1, keepdims=True), 1e-12)), vectors.dtype)


@keras.saving.register_keras_serializable("marsls_keras")
class SwinV2Block(keras.layers.Layer):
    """Apply a block of Swin Transformer V2: x + norm1(attention(x)), then x + norm2(mlp(x)), under stochastic depth.

    The normalisations come after what they normalise ("res-post-norm"), so that values do not grow with depth. The MLP
    is linear to mlp_ratio C, exact GELU, linear to C. Scales of normalisations begin at 1; the authors' code begins
    them at 0, which the paper does not mention and which would keep gradients from all other weights of a block in the
    first step.

    Args:
        heads: Number of heads.
        window: Side of the windows in tokens.
        shift: Shift of the windows in tokens.
        mlp_ratio: Ratio of the hidden width of the MLP to C.
        drop_path: Probability that a sample skips a branch in training.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, C), of any size (`WindowAttention`).
        training: Whether branches are skipped.

    Returns:
        (B, H, W, C), in the layer's compute dtype.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Liu et al., "Swin Transformer V2", CVPR 2022, section 3.2.

    Example:
        >>> layer = SwinV2Block(heads=2, window=4, mlp_ratio=2)
        >>> tuple(layer(np.ones((1, 8, 8, 4), "float32")).shape)
        (1, 8, 8, 4)
    """

    def __init__(
        self, heads: int, window: int = 8, shift: int = 0, mlp_ratio: int = 4, drop_path: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if mlp_ratio < 1:
            raise ValueError(f"SwinV2Block needs an mlp_ratio of at least 1. Received: {mlp_ratio}")
        self.heads, self.window, self.shift, self.mlp_ratio, self.drop_path = heads, window, shift, mlp_ratio, drop_path
        policy = self.dtype_policy
        self.attention = WindowAttention(heads, window, shift, dtype=policy, name="attention")
        self.norm1, self.norm2 = (
            layers.LayerNormalization(epsilon=1e-5, dtype=policy, name=f"norm{i}") for i in (1, 2)
        )
        self.skip1, self.skip2 = (DropPath(drop_path, dtype=policy, name=f"drop_path{i}") for i in (1, 2))

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        for layer in (self.attention, self.norm1, self.norm2):
            layer.build(input_shape)
        hidden = self.mlp_ratio * channels
        self.fc1 = layers.Dense(hidden, kernel_initializer=_normal(), dtype=self.dtype_policy, name="fc1")
        self.fc2 = layers.Dense(channels, kernel_initializer=_normal(), dtype=self.dtype_policy, name="fc2")
        self.fc1.build((None, channels))
        self.fc2.build((None, hidden))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x = inputs + self.skip1(self.norm1(self.attention(inputs)), training=training)
        branch = self.norm2(self.fc2(ops.gelu(self.fc1(x), approximate=False)))
        return x + self.skip2(branch, training=training)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {
            "heads": self.heads,
            "window": self.window,
            "shift": self.shift,
            "mlp_ratio": self.mlp_ratio,
            "drop_path": self.drop_path,
        }
        return {**super().get_config(), **own}
