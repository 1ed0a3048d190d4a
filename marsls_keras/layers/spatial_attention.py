"""Multi-head self-attention among the pixels of a feature map, in layouts that fit in memory."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

LAYOUTS = ("rows", "columns", "pooled")
POOL = 4
"""Side in pixels of the squares that the layout `pooled` averages to one token."""


@keras.saving.register_keras_serializable("marsls_keras")
class SpatialAttention(keras.layers.Layer):
    """Apply multi-head self-attention along rows, along columns, or among pooled pixels of a feature map.

    The pixels are tokens: softmax(Q Kᵀ / √d) V for each head, and an output projection.

    Attention among all H W pixels would need H² W² scores per head, 34 GB for a batch of 16 maps of 128 x 128 with two
    heads. The layouts need less. All have the same parameters, those of keras.layers.MultiHeadAttention:
    - "rows": the pixels of a row attend to each other, H W² scores per head.
    - "columns": the pixels of a column attend to each other, H² W scores.
    - "pooled": means of squares of 4 x 4 pixels attend to each other, (H W / 16)² scores; the result is upsampled
      bilinearly to H x W.

    The bias of the keys has no effect, since it adds the same value to all scores of a query; it is kept for
    compatibility with MultiHeadAttention.

    Args:
        num_heads: Number of heads n.
        key_dim: Features d of a head, for queries, keys and values.
        layout: "rows", "columns" or "pooled".
        **kwargs: Passed to keras.layers.Layer.

    Raises:
        ValueError: If an argument is out of range; or, when it is called, if H or W is not divisible by 4 in the layout
            "pooled".

    Call arguments:
        inputs: Float (B, H, W, C).

    Returns:
        Float (B, H, W, C).

    Reference:
        Paheding et al., "MarsLS-Net", WACV 2024, equations 2 to 5; Vaswani et al., "Attention is all you need", NeurIPS
        2017; for rows and columns in turns, Ho et al., "Axial attention in multidimensional transformers", 2019.

    Example:
        >>> layer = SpatialAttention(num_heads=2, key_dim=2, layout="columns")
        >>> tuple(layer(np.ones((1, 8, 8, 3), "float32")).shape)
        (1, 8, 8, 3)
    """

    def __init__(self, num_heads: int = 2, key_dim: int = 2, layout: str = "rows", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_heads < 1 or key_dim < 1 or layout not in LAYOUTS:
            raise ValueError(
                f"SpatialAttention needs num_heads and key_dim of at least 1 and a layout of {', '.join(LAYOUTS)}. "
                f"Received: num_heads={num_heads}, key_dim={key_dim}, layout={layout!r}"
            )
        self.num_heads, self.key_dim, self.layout = num_heads, key_dim, layout

    def build(self, input_shape: tuple[Any, ...]) -> None:
        channels, inner = input_shape[-1], self.num_heads * self.key_dim
        self.qkv_kernel = self.add_weight(shape=(channels, 3 * inner), initializer="glorot_uniform", name="qkv_kernel")
        self.qkv_bias = self.add_weight(shape=(3 * inner,), initializer="zeros", name="qkv_bias")
        self.output_kernel = self.add_weight(
            shape=(inner, channels), initializer="glorot_uniform", name="output_kernel"
        )
        self.output_bias = self.add_weight(shape=(channels,), initializer="zeros", name="output_bias")

    def call(self, inputs: Any) -> Any:
        qkv = ops.matmul(inputs, self.qkv_kernel) + self.qkv_bias  # (B, H, W, 3 n d)
        return ops.matmul(self.attend(qkv), self.output_kernel) + self.output_bias  # (B, H, W, C)

    def attend(self, qkv: Any) -> Any:
        """Apply the attention to projected queries, keys and values, without the output projection.

        Args:
            qkv: Queries, keys and values, (B, H, W, 3 * n * d); head by head in each.

        Returns:
            Float (B, H, W, n * d), head by head.
        """
        if self.layout != "pooled":
            return self._attend(qkv)
        size = tuple(ops.shape(qkv)[1:3])
        if any(isinstance(side, int) and side % POOL for side in size):
            raise ValueError(
                f"The layout pooled needs height and width divisible by {POOL}. Received: {size[0]} x {size[1]}"
            )
        # The mean of projections is the projection of the mean, and they are fewer maps.
        pooled = ops.average_pool(qkv, POOL, POOL, data_format="channels_last")  # (B, H / 4, W / 4, 3 n d)
        values = self._attend(pooled)  # (B, H / 4, W / 4, n d)
        return ops.image.resize(values, size, interpolation="bilinear", data_format="channels_last")  # (B, H, W, n d)

    def _attend(self, qkv: Any) -> Any:
        _, height, width, channels = ops.shape(qkv)
        if self.layout == "pooled":
            qkv = ops.reshape(qkv, (-1, 1, height * width, channels))  # one row
        elif self.layout == "columns":
            qkv = ops.swapaxes(qkv, 1, 2)  # (B, W, H, 3 n d)
        lines, tokens = ops.shape(qkv)[1:3]
        qkv = ops.reshape(qkv, (-1, lines, tokens, 3, self.num_heads, self.key_dim))
        q, k, v = ops.unstack(ops.transpose(qkv, (3, 0, 1, 4, 2, 5)), 3)  # each (B, lines, n, tokens, d)
        scores = ops.matmul(q * self.key_dim**-0.5, ops.swapaxes(k, -1, -2))  # (B, lines, n, tokens, tokens)
        values = ops.transpose(ops.matmul(ops.softmax(scores), v), (0, 1, 3, 2, 4))  # (B, lines, tokens, n, d)
        if self.layout == "columns":
            values = ops.swapaxes(values, 1, 2)  # (B, H, W, n, d)
        return ops.reshape(values, (-1, height, width, channels // 3))

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_heads": self.num_heads, "key_dim": self.key_dim, "layout": self.layout}
