"""Block of MarsLS-Net: dilated convolutions with progressive expansion, self-attention and a skip connection."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from marsls_keras.layers.batch_norm import BatchNormalization
from marsls_keras.layers.progressive_expansion import ProgressiveExpansion
from marsls_keras.layers.spatial_attention import SpatialAttention


@keras.saving.register_keras_serializable("marsls_keras")
class PenAttention(layers.Layer):
    """Apply a block of MarsLS-Net: progressively expanded neuron attention.

    From x, with F maps, and with u terms of the expansion:
    1. two ConvPE branches: Conv2D(F, k, dilation 2, L2) - BatchNorm - ReLU - ProgressiveExpansion(u) -> u F maps each
    2. both branches concatenated, 2 u F maps, through multi-head self-attention (2 heads of 2 features) and Conv2D(F,
       1) -> F maps
    3. the result concatenated with x, 2 F maps, through Conv2D(F, k) - BatchNorm - ReLU - LayerNorm -> F maps

    Implemented with fewer operations, for the same values and gradients up to rounding:
    - The branches have the same input, so they are the two halves of the filters of one convolution. The order of their
      maps in the expansion differs from the paper's, which makes no difference to the dense projection that follows.
    - The expansion is read by a linear projection only, which takes powers of the maps instead
      (`ProgressiveExpansion.project`).
    - Attention's output projection and both convolutions after it are linear, with nothing between. Their kernels are
      multiplied first; the last convolution then reads the four maps that the heads give and a map of ones, which
      carries the biases and, like them, ends at the border, where the padding is zeros. The 2 u F maps after attention
      and the F maps of Conv2D(F, 1) are never computed, and the last convolution reads F + 5 maps instead of 2 F.

    Args:
        filters: Maps F of the input and the output.
        kernel_size: Side k of the convolutions, in pixels.
        expansion_terms: Terms u; 1 is no expansion.
        layout: Layout of the attention, as in `SpatialAttention`.
        conv_pe: False leaves step 1 out (Table 4, "w/o ConvPE"): attention sees x.
        mhsa: False leaves attention out (Table 4, "w/o MHSA"): Conv2D(F, 1) sees the branches.
        l2: Factor of the sum of squares of the dilated kernels in the loss.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, F).
        training: Whether batch normalisation uses the batch's statistics.

    Returns:
        Float (B, H, W, F).

    Reference:
        Paheding et al., "MarsLS-Net", WACV 2024, section 3.1, figure 2 and equations 1 to 5.

    Example:
        >>> layer = PenAttention(filters=4, kernel_size=3)
        >>> tuple(layer(np.ones((1, 8, 8, 4), "float32")).shape)
        (1, 8, 8, 4)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        *,
        expansion_terms: int = 2,
        layout: str = "rows",
        conv_pe: bool = True,
        mhsa: bool = True,
        l2: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.expansion_terms = filters, kernel_size, expansion_terms
        self.layout, self.conv_pe, self.mhsa, self.l2 = layout, conv_pe, mhsa, l2

        def conv(filters: int, size: int, **options: Any) -> layers.Layer:
            return layers.Conv2D(
                filters, size, padding="same", kernel_initializer="he_uniform", dtype=self.dtype_policy, **options
            )

        if conv_pe:
            self.branches = conv(
                2 * filters, kernel_size, dilation_rate=2, kernel_regularizer=keras.regularizers.L2(l2), name="branches"
            )
            self.branches_norm = BatchNormalization(momentum=0.9, dtype=self.dtype_policy, name="branches_norm")
            self.expansion = ProgressiveExpansion(expansion_terms, dtype=self.dtype_policy, name="expansion")
        if mhsa:
            self.attention = SpatialAttention(2, 2, layout, dtype=self.dtype_policy, name="attention")
        self.reduce = conv(filters, 1, name="reduce")
        self.merge = conv(filters, kernel_size, name="merge")
        self.merge_norm = BatchNormalization(momentum=0.9, dtype=self.dtype_policy, name="merge_norm")
        self.norm = layers.LayerNormalization(dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: tuple[Any, ...]) -> None:
        batch, height, width, filters = input_shape

        def maps(number: int) -> tuple[Any, ...]:
            return (batch, height, width, number)

        context = filters
        if self.conv_pe:
            context = 2 * self.expansion_terms * self.filters
            self.branches.build(input_shape)
            self.branches_norm.build(maps(2 * self.filters))
            self.expansion.build(maps(2 * self.filters))
        if self.mhsa:
            self.attention.build(maps(context))
        self.reduce.build(maps(context))
        self.merge.build(maps(self.filters + filters))
        self.merge_norm.build(maps(self.filters))
        self.norm.build(maps(self.filters))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        context = inputs
        if self.conv_pe:
            context = ops.relu(self.branches_norm(self.branches(inputs), training=training))  # (B, H, W, 2 F)
        x = (self._with_attention if self.mhsa else self._without_attention)(context, inputs)
        return self.norm(ops.relu(self.merge_norm(x, training=training)))  # (B, H, W, F)

    def _project(self, context: Any, kernel: Any, bias: Any) -> Any:
        """Apply a pointwise convolution to the expansion of the context."""
        return (self.expansion.project(context, kernel) if self.conv_pe else ops.matmul(context, kernel)) + bias

    def _without_attention(self, context: Any, inputs: Any) -> Any:
        reduced = self._project(context, self.reduce.kernel[0, 0], self.reduce.bias)
        return self.merge(ops.concatenate([reduced, inputs], -1))

    def _with_attention(self, context: Any, inputs: Any) -> Any:
        """Return merge(concatenate([reduce(attention(expansion(context))), inputs])), with multiplied kernels."""
        heads = self.attention.attend(
            self._project(context, self.attention.qkv_kernel, self.attention.qkv_bias)
        )  # (B, H, W, 4)
        maps = ops.concatenate([heads, ops.ones_like(heads[..., :1]), inputs], -1)  # (B, H, W, 4 + 1 + F)
        projection = ops.concatenate(
            [self.attention.output_kernel, self.attention.output_bias[None]], 0
        )  # (4 + 1, 2 u F)
        reduction = ops.matmul(projection, self.reduce.kernel[0, 0])  # (4 + 1, F); the last row still lacks the bias
        reduction = ops.concatenate([reduction[:-1], reduction[-1:] + self.reduce.bias], 0)
        after, skip = ops.split(self.merge.kernel, 2, axis=2)  # each (k, k, F, F)
        kernel = ops.concatenate([ops.matmul(reduction, after), skip], 2)  # (k, k, 4 + 1 + F, F)
        return ops.conv(maps, kernel, padding="same", data_format="channels_last") + self.merge.bias

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        names = ("filters", "kernel_size", "expansion_terms", "layout", "conv_pe", "mhsa", "l2")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
