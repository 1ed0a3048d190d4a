"""Residual block of RMAU-Net: parallel convolutions of three kernel sizes and a shortcut."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from marsls_keras.layers.batch_norm import BatchNormalization

_KERNELS = (1, 3, 5)


@keras.saving.register_keras_serializable("marsls_keras")
class ResConv(keras.layers.Layer):
    """Apply 1 x 1, 3 x 3 and 5 x 5 convolutions in parallel, merge them, and add a shortcut.

    y = a(BN(W_s x) + a(BN(W_m [a(BN(W_1 x)), a(BN(W_3 x)), a(BN(W_5 x))]))), where a is LeakyReLU and W_k a biased k x
    k convolution to `filters` maps (W_s and W_m are 1 x 1). From C to F maps that is 36CF + 3F² + 25F parameters, 10F
    of them moving statistics.

    The paper draws the block (Fig. 5) without widths, biases or slope. Chosen here: F maps in each branch, biases, the
    slope 0.3 of Keras and a normalised 1 x 1 convolution as shortcut, since C and F differ. The momentum of the moving
    statistics is 0.9, because 30 epochs of a few hundred tiles are too few steps for Keras' 0.99.

    Args:
        filters: Number of maps F.
        slope: Slope of LeakyReLU below 0.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, C).
        training: Whether batch normalisation uses the batch's statistics.

    Returns:
        (B, H, W, F), in the layer's compute dtype.

    Raises:
        ValueError: If filters is below 1 or slope negative.

    Reference:
        Pham et al., "RMAU-NET", 2025, section IV.C, Fig. 5, Table VIII (mIoU 63.45 instead of 62.19 on
        Landslide4Sense).

    Example:
        >>> tuple(ResConv(filters=6)(np.ones((1, 8, 8, 4), "float32")).shape)
        (1, 8, 8, 6)
    """

    def __init__(self, filters: int, slope: float = 0.3, **kwargs: Any) -> None:
        if filters < 1 or slope < 0:
            raise ValueError(
                "ResConv needs filters of at least 1 and a slope of 0 or more. "
                f"Received: filters={filters}, slope={slope}"
            )
        super().__init__(**kwargs)
        self.filters, self.slope = filters, slope
        self.branches = [self._convolution(size, f"conv{size}") for size in _KERNELS]
        self.branch_norms = [self._norm(f"bn{size}") for size in _KERNELS]
        self.merge, self.merge_norm = self._convolution(1, "merge"), self._norm("merge_bn")
        self.shortcut, self.shortcut_norm = self._convolution(1, "shortcut"), self._norm("shortcut_bn")

    def _convolution(self, size: int, name: str) -> layers.Conv2D:
        return layers.Conv2D(
            self.filters, size, padding="same", kernel_initializer="he_normal", dtype=self.dtype_policy, name=name
        )

    def _norm(self, name: str) -> BatchNormalization:
        return BatchNormalization(momentum=0.9, dtype=self.dtype_policy, name=name)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        each = (*input_shape[:-1], self.filters)
        for convolution in (*self.branches, self.shortcut):
            convolution.build(input_shape)
        self.merge.build((*input_shape[:-1], self.filters * len(_KERNELS)))
        for norm in (*self.branch_norms, self.merge_norm, self.shortcut_norm):
            norm.build(each)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        pairs = zip(self.branches, self.branch_norms, strict=True)
        maps = [self._activate(norm(convolution(inputs), training=training)) for convolution, norm in pairs]
        merged = self.merge(ops.concatenate(maps, axis=-1))  # (B, H, W, 3F) to (B, H, W, F)
        merged = self._activate(self.merge_norm(merged, training=training))
        return self._activate(merged + self.shortcut_norm(self.shortcut(inputs), training=training))

    def _activate(self, x: Any) -> Any:
        return ops.leaky_relu(x, self.slope)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "slope": self.slope}
