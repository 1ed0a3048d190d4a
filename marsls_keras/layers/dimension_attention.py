"""Multi-head attention along height, width and channels of a feature map, as in RMAU-Net."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from marsls_keras.layers.resize import interpolation


@keras.saving.register_keras_serializable("marsls_keras")
class DimensionAttention(keras.layers.Layer):
    """Weight a feature map by multi-head attention over its means and maxima along height, width and channels.

    The map X (H, W, C) is reduced along one dimension at a time, by its mean and by its maximum:

    | reduced | pooled maps | tokens | features | weights |
    |---|---|---|---|---|
    | H | (W, C) | W | C | A_h (1, W, C) |
    | W | (H, C) | H | C | A_w (H, 1, C) |
    | C | (H, W) | H | W | A_c (H, W, 1) |

    with A = sigmoid(MHA(mean) + MHA(max)), where each dimension has its own multi-head self-attention, shared by mean
    and maximum. The result is the average of the three products, X (A_h + A_w + A_c) / 3. With 4 heads and key_dim 16
    an attention over features F has 257F + 192 parameters, so the layer has 514C + 257W + 576.

    The paper (Fig. 6) defines the pooling, the attention and the product with X, but not the tokens, the number of
    heads and the fusion of the results. Those above are choices of this package; tokens are the first axis of a pooled
    map.

    The third attention projects rows of W pixels, so its parameters fit one width only. The layer is built for `width`;
    a pooled map of another width is resized to it linearly, and the result is resized back before the sigmoid. This is
    an approximation that is not in the paper. H may have any size.

    Args:
        width: Width W in pixels that the attention over pixels is built for.
        heads: Number of heads.
        key_dim: Size of queries, keys and values of a head.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, C).

    Returns:
        (B, H, W, C), in the layer's compute dtype.

    Raises:
        ValueError: If an argument is below 1.

    Reference:
        Pham et al., "RMAU-NET", 2025, section IV.C, Fig. 6, Table VIII (mIoU 63.05 instead of 62.19 on
        Landslide4Sense), after Le et al., IGARSS 2024.

    Example:
        >>> layer = DimensionAttention(width=8, heads=2, key_dim=4)
        >>> tuple(layer(np.ones((1, 6, 8, 3), "float32")).shape)
        (1, 6, 8, 3)
    """

    def __init__(self, width: int, heads: int = 4, key_dim: int = 16, **kwargs: Any) -> None:
        if min(width, heads, key_dim) < 1:
            raise ValueError(
                "DimensionAttention needs width, heads and key_dim of at least 1. "
                f"Received: width={width}, heads={heads}, key_dim={key_dim}"
            )
        super().__init__(**kwargs)
        self.width, self.heads, self.key_dim = width, heads, key_dim
        self.over_height, self.over_width, self.over_channels = (
            layers.MultiHeadAttention(heads, key_dim, dtype=self.dtype_policy, name=f"over_{name}")
            for name in ("height", "width", "channels")
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1]
        for attention, features in (
            (self.over_height, channels),
            (self.over_width, channels),
            (self.over_channels, self.width),
        ):
            attention.build((None, None, features), (None, None, features))

    def call(self, inputs: Any) -> Any:
        height, width, channels = (ops.stack([ops.mean(inputs, axis), ops.max(inputs, axis)]) for axis in (1, 2, 3))
        of_height = ops.sigmoid(self._attend(self.over_height, height))  # (B, W, C)
        of_width = ops.sigmoid(self._attend(self.over_width, width))  # (B, H, C)
        of_channels = ops.sigmoid(self._attend_columns(channels))  # (B, H, W)
        return inputs * ((of_height[:, None] + of_width[:, :, None] + of_channels[..., None]) / 3)

    def _attend(self, attention: layers.MultiHeadAttention, pooled: Any) -> Any:
        """Return the sum of the attention's outputs for mean and maximum, (2, B, T, F) to (B, T, F)."""
        _, _, tokens, features = ops.shape(pooled)
        together = ops.reshape(
            pooled, (-1, tokens, pooled.shape[-1] or features)
        )  # (2B, T, F), one call instead of two
        return ops.sum(ops.reshape(attention(together, together), ops.shape(pooled)), axis=0)

    def _attend_columns(self, pooled: Any) -> Any:
        """Apply `_attend` to rows of any width, resized to the built width and back: (2, B, H, W) to (B, H, W)."""
        if pooled.shape[-1] == self.width:
            return self._attend(self.over_channels, pooled)
        columns = ops.shape(pooled)[-1]
        there, back = interpolation(columns, self.width), interpolation(self.width, columns)
        resized = ops.matmul(pooled, ops.cast(ops.transpose(there), pooled.dtype))  # (2, B, H, width)
        attended = self._attend(self.over_channels, resized)
        return ops.matmul(attended, ops.cast(ops.transpose(back), attended.dtype))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "heads": self.heads, "key_dim": self.key_dim}
