"""Parts of Swin Transformer (V1): windowed attention with a table of position biases, its block, and patch merging."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from marsls_keras.layers.drop_path import DropPath
from marsls_keras.layers.window_partition import (
    Axis,
    add_bias,
    attention_mask,
    in_windows,
    relative_position_index,
    window_partition,
    window_reverse,
)

_EPSILON = 1e-5


def _normal() -> keras.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.02)


@keras.saving.register_keras_serializable("marsls_keras")
class BiasedWindowAttention(keras.layers.Layer):
    """Apply multi-head self-attention within (shifted) windows, with a learned bias for each relative position.

    softmax(q k' / sqrt(d) + b) v for each head of width d; b is looked up in a table of (2 window - 1)^2 differences of
    rows and columns.

    Grids may have any size, also below the window, and are treated as timm does with `dynamic_img_size`: they are
    rolled by the shift, then padded with zeros at the bottom and right to whole windows. Without a shift, padding is
    attended to. With a shift, the last `shift` rows and columns of the padded grid, and all others, are closed to each
    other.

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
        Liu et al., "Swin Transformer", ICCV 2021, eq. 4; padding as in timm.

    Example:
        >>> layer = BiasedWindowAttention(heads=2, window=7, shift=3)
        >>> tuple(layer(np.ones((1, 8, 4, 4), "float32")).shape)
        (1, 8, 4, 4)
    """

    def __init__(self, heads: int, window: int = 7, shift: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if heads < 1 or window < 1 or not 0 <= shift < window:
            raise ValueError(
                "BiasedWindowAttention needs heads and window of at least 1 and a shift from 0 to below window. "
                f"Received: heads={heads}, window={window}, shift={shift}"
            )
        self.heads, self.window, self.shift = heads, window, shift

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        if channels is None or channels % self.heads:
            raise ValueError(f"The number of channels must be divisible by {self.heads} heads. Received: {channels}")
        options: dict[str, Any] = {"kernel_initializer": _normal(), "dtype": self.dtype_policy}
        self.qkv = layers.Dense(3 * channels, name="qkv", **options)
        self.proj = layers.Dense(channels, name="proj", **options)
        for layer in (self.qkv, self.proj):
            layer.build((None, channels))
        self.table = self.add_weight(
            shape=((2 * self.window - 1) ** 2, self.heads),
            initializer=_normal(),
            autocast=False,  # it is added to scores in float32
            name="relative_position_bias_table",
        )

    def call(self, inputs: Any) -> Any:
        _, height, width, _ = ops.shape(inputs)
        rows, columns = (Axis(size, self.window, self.shift) for size in (height, width))
        return self.proj(in_windows(inputs, rows, columns, lambda x: self._attend(x, rows, columns)))

    def _attend(self, x: Any, rows: Axis, columns: Axis) -> Any:
        """Apply attention, without the last projection, to maps whose sides are multiples of the windows."""
        x = window_partition(self.qkv(x), rows, columns, 3 * self.heads)  # (3 heads, B windows, tokens, C / heads)
        q, k, v = ops.split(x, 3)
        q = q * ops.cast(q.shape[-1] ** -0.5, q.dtype)
        scores = ops.cast(ops.matmul(q, ops.swapaxes(k, -1, -2)), "float32")  # (heads, B windows, tokens, tokens)
        full = Axis(self.window, self.window, 0)
        bias = ops.take(ops.transpose(self.table), relative_position_index(full, full), axis=1)[:, None]
        # Padding counts as part of the grid.
        mask = attention_mask(*(Axis(a.number * a.window, a.window, a.shift) for a in (rows, columns)))
        weights = ops.cast(ops.softmax(add_bias(scores, bias, mask)), self.compute_dtype)
        return window_reverse(ops.matmul(weights, v), rows, columns)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads, "window": self.window, "shift": self.shift}


@keras.saving.register_keras_serializable("marsls_keras")
class SwinBlock(keras.layers.Layer):
    """Apply a block of Swin Transformer: x + attention(norm1(x)), then x + mlp(norm2(x)), under stochastic depth.

    The attention is `BiasedWindowAttention`; the MLP is linear to mlp_ratio C, exact GELU, linear to C.

    Args:
        heads: Number of heads.
        window: Side of the windows in tokens.
        shift: Shift of the windows in tokens.
        mlp_ratio: Ratio of the hidden width of the MLP to C.
        drop_path: Probability that a sample skips a branch in training.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, C), of any size (`BiasedWindowAttention`).
        training: Whether branches are skipped.

    Returns:
        (B, H, W, C), in the layer's compute dtype.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Liu et al., "Swin Transformer", ICCV 2021, section 3.2.

    Example:
        >>> layer = SwinBlock(heads=2, window=4, shift=2, mlp_ratio=2)
        >>> tuple(layer(np.ones((1, 8, 8, 4), "float32")).shape)
        (1, 8, 8, 4)
    """

    def __init__(
        self, heads: int, window: int = 7, shift: int = 0, mlp_ratio: int = 4, drop_path: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if mlp_ratio < 1:
            raise ValueError(f"SwinBlock needs an mlp_ratio of at least 1. Received: {mlp_ratio}")
        self.heads, self.window, self.shift, self.mlp_ratio, self.drop_path = heads, window, shift, mlp_ratio, drop_path
        policy = self.dtype_policy
        self.attention = BiasedWindowAttention(heads, window, shift, dtype=policy, name="attention")
        self.norm1, self.norm2 = (
            layers.LayerNormalization(epsilon=_EPSILON, dtype=policy, name=f"norm{i}") for i in (1, 2)
        )
        self.skip1, self.skip2 = (DropPath(drop_path, dtype=policy, name=f"drop_path{i}") for i in (1, 2))

    def build(self, input_shape: Any) -> None:
        channels, policy = input_shape[-1], self.dtype_policy
        for layer in (self.norm1, self.attention, self.norm2):
            layer.build(input_shape)
        hidden = self.mlp_ratio * channels
        self.fc1 = layers.Dense(hidden, kernel_initializer=_normal(), dtype=policy, name="fc1")
        self.fc2 = layers.Dense(channels, kernel_initializer=_normal(), dtype=policy, name="fc2")
        self.fc1.build((None, channels))
        self.fc2.build((None, hidden))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x = inputs + self.skip1(self.attention(self.norm1(inputs)), training=training)
        branch = self.fc2(ops.gelu(self.fc1(self.norm2(x)), approximate=False))
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


@keras.saving.register_keras_serializable("marsls_keras")
class PatchMerging(keras.layers.Layer):
    """Merge 2 x 2 neighbouring tokens: concatenation of their channels, LayerNorm, and a linear map without bias.

    The order of the concatenation is column by column. An odd side is padded with zeros at the bottom or right.

    Args:
        channels: Number of output channels; Swin Transformer doubles those of its input.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, C).

    Returns:
        (B, H / 2, W / 2, channels), sizes rounded up, in the layer's compute dtype.

    Raises:
        ValueError: If channels is below 1.

    Reference:
        Liu et al., "Swin Transformer", ICCV 2021, section 3.1.

    Example:
        >>> tuple(PatchMerging(8)(np.ones((1, 6, 5, 4), "float32")).shape)
        (1, 3, 3, 8)
    """

    def __init__(self, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if channels < 1:
            raise ValueError(f"PatchMerging needs at least one channel. Received: {channels}")
        self.channels = channels
        self.norm = layers.LayerNormalization(epsilon=_EPSILON, dtype=self.dtype_policy, name="norm")
        self.reduction = layers.Dense(
            channels, use_bias=False, kernel_initializer=_normal(), dtype=self.dtype_policy, name="reduction"
        )

    def build(self, input_shape: Any) -> None:
        for layer in (self.norm, self.reduction):
            layer.build((None, 4 * input_shape[-1]))

    def call(self, inputs: Any) -> Any:
        _, height, width, channels = ops.shape(inputs)
        x = ops.pad(inputs, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        rows, columns = (height + 1) // 2, (width + 1) // 2
        x = ops.reshape(x, (-1, rows, 2, columns, 2, channels))
        x = ops.transpose(x, (0, 1, 3, 4, 2, 5))  # (B, H/2, W/2, column, row, C)
        return self.reduction(self.norm(ops.reshape(x, (-1, rows, columns, 4 * channels))))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        number, *sides, _ = input_shape
        return (number, *(None if side is None else (side + 1) // 2 for side in sides), self.channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels}
