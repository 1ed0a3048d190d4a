"""Blocks of SegFormer's encoder (MiT): attention to a reduced map, and an MLP with a depthwise convolution."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from marsls_keras.layers.drop_path import DropPath

_EPSILON = 1e-5


def _normal() -> keras.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.02)


@keras.saving.register_keras_serializable("marsls_keras")
class ReducedAttention(keras.layers.Layer):
    """Apply multi-head self-attention whose keys and values come from a strided convolution of the map.

    Queries come from all N tokens, keys and values from N / reduction^2 of them: a convolution whose kernel and stride
    are the reduction, and LayerNorm. A side that is no multiple of the reduction is padded with zeros.

    Args:
        heads: Number of heads, a divisor of the number C of channels.
        reduction: Factor by which each side of the map is reduced; 1 attends to all tokens.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, C), or (B, tokens, C) without a reduction.

    Returns:
        The same shape, in the layer's compute dtype. The softmax is computed in float32.

    Raises:
        ValueError: If an argument is out of range, or heads does not divide C.

    Reference:
        Xie et al., "SegFormer", NeurIPS 2021, section 3.1; the reduction as in Wang et al., "Pyramid Vision
        Transformer", ICCV 2021.

    Example:
        >>> layer = ReducedAttention(heads=2, reduction=2)
        >>> tuple(layer(np.ones((1, 8, 8, 4), "float32")).shape)
        (1, 8, 8, 4)
    """

    def __init__(self, heads: int, reduction: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if heads < 1 or reduction < 1:
            raise ValueError(
                "ReducedAttention needs heads and reduction of at least 1. "
                f"Received: heads={heads}, reduction={reduction}"
            )
        self.heads, self.reduction = heads, reduction

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        if channels is None or channels % self.heads:
            raise ValueError(f"The number of channels must be divisible by {self.heads} heads. Received: {channels}")
        policy = self.dtype_policy
        if self.reduction > 1:
            self.reduce = layers.Conv2D(
                channels, self.reduction, self.reduction, padding="same", dtype=policy, name="reduce"
            )
            self.norm = layers.LayerNormalization(epsilon=_EPSILON, dtype=policy, name="norm")
            self.reduce.build(input_shape)
            self.norm.build(input_shape)
        self.query, self.key, self.value, self.out = (
            layers.Dense(channels, kernel_initializer=_normal(), dtype=policy, name=name)
            for name in ("query", "key", "value", "out")
        )
        for layer in (self.query, self.key, self.value, self.out):
            layer.build((None, channels))

    def call(self, inputs: Any) -> Any:
        seen = self.norm(self.reduce(inputs)) if self.reduction > 1 else inputs
        query, key, value = self._split(self.query(inputs)), self._split(self.key(seen)), self._split(self.value(seen))
        x = ops.dot_product_attention(query, key, value)  # (B, tokens, heads, C / heads)
        return self.out(ops.reshape(x, ops.shape(inputs)))

    def _split(self, x: Any) -> Any:
        """Reshape (B, …, C) to (B, tokens, heads, C / heads)."""
        return ops.reshape(x, (ops.shape(x)[0], -1, self.heads, x.shape[-1] // self.heads))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads, "reduction": self.reduction}


@keras.saving.register_keras_serializable("marsls_keras")
class MixTransformerBlock(keras.layers.Layer):
    """Apply a block of SegFormer's encoder: x + attention(norm1(x)), then x + ffn(norm2(x)), under stochastic depth.

    The feed-forward part ("Mix-FFN") is linear to mlp_ratio C, depthwise convolution 3 x 3, exact GELU, linear to C.
    The zero padding of the convolution encodes positions, so that no position embedding is needed and images may have
    any size.

    Args:
        heads: Number of heads.
        reduction: Factor by which each side of the map is reduced for keys and values (`ReducedAttention`).
        mlp_ratio: Ratio of the hidden width of the feed-forward part to C.
        drop_path: Probability that a sample skips a branch in training.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, C), of any size.
        training: Whether branches are skipped.

    Returns:
        (B, H, W, C), in the layer's compute dtype.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Xie et al., "SegFormer", NeurIPS 2021, section 3.1.

    Example:
        >>> layer = MixTransformerBlock(heads=2, reduction=2, mlp_ratio=2)
        >>> tuple(layer(np.ones((1, 8, 8, 4), "float32")).shape)
        (1, 8, 8, 4)
    """

    def __init__(
        self, heads: int, reduction: int = 1, mlp_ratio: int = 4, drop_path: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if mlp_ratio < 1:
            raise ValueError(f"MixTransformerBlock needs an mlp_ratio of at least 1. Received: {mlp_ratio}")
        self.heads, self.reduction, self.mlp_ratio, self.drop_path = heads, reduction, mlp_ratio, drop_path
        policy = self.dtype_policy
        self.attention = ReducedAttention(heads, reduction, dtype=policy, name="attention")
        names = ("attention_norm", "ffn_norm")
        self.norm1, self.norm2 = (
            layers.LayerNormalization(epsilon=_EPSILON, dtype=policy, name=name) for name in names
        )
        self.skip1, self.skip2 = (DropPath(drop_path, dtype=policy, name=f"drop_path{i}") for i in (1, 2))

    def build(self, input_shape: Any) -> None:
        channels, policy = input_shape[-1], self.dtype_policy
        for layer in (self.attention, self.norm1, self.norm2):
            layer.build(input_shape)
        hidden = self.mlp_ratio * channels
        fan_out = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
        self.ffn1 = layers.Dense(hidden, kernel_initializer=_normal(), dtype=policy, name="ffn1")
        self.depthwise = layers.DepthwiseConv2D(
            3, padding="same", depthwise_initializer=fan_out, dtype=policy, name="ffn_depthwise"
        )
        self.ffn2 = layers.Dense(channels, kernel_initializer=_normal(), dtype=policy, name="ffn2")
        self.ffn1.build((None, channels))
        self.depthwise.build((*input_shape[:-1], hidden))
        self.ffn2.build((None, hidden))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x = inputs + self.skip1(self.attention(self.norm1(inputs)), training=training)
        branch = ops.gelu(self.depthwise(self.ffn1(self.norm2(x))), approximate=False)
        return x + self.skip2(self.ffn2(branch), training=training)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {
            "heads": self.heads,
            "reduction": self.reduction,
            "mlp_ratio": self.mlp_ratio,
            "drop_path": self.drop_path,
        }
        return {**super().get_config(), **own}
