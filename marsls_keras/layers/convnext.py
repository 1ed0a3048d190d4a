"""Blocks of ConvNeXt and ConvNeXt V2: depthwise 7 x 7 convolution and an MLP; V2 adds global response normalisation."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from marsls_keras.layers.drop_path import DropPath

_EPSILON = 1e-6


def _normal() -> keras.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.02)


@keras.saving.register_keras_serializable("marsls_keras")
class GlobalResponseNormalization(keras.layers.Layer):
    """Amplify the channels whose response over the whole map is above the average of all channels.

    The result is x + gamma x n + beta, where n is the L2 norm of a channel over the map, divided by the mean of these
    norms over the channels. Both parameters begin at 0.

    Call arguments:
        inputs: Float (B, H, W, C).

    Returns:
        (B, H, W, C), in the layer's compute dtype; the norms are computed in float32.

    Reference:
        Woo et al., "ConvNeXt V2", CVPR 2023, section 3.2.

    Example:
        >>> maps = np.ones((1, 4, 4, 8), "float32")
        >>> bool(np.all(GlobalResponseNormalization()(maps) == maps))  # gamma and beta begin at 0
        True
    """

    def build(self, input_shape: Any) -> None:
        self.gamma, self.beta = (
            self.add_weight(shape=(input_shape[-1],), initializer="zeros", name=name) for name in ("gamma", "beta")
        )

    def call(self, inputs: Any) -> Any:
        x = ops.cast(inputs, "float32")
        # Bounded below: at 0, the norm of a channel of zeros, the gradient of the root is infinite.
        norm = ops.sqrt(ops.maximum(ops.sum(x * x, axis=(1, 2), keepdims=True), 1e-37))  # (B, 1, 1, C)
        norm = norm / (ops.mean(norm, axis=-1, keepdims=True) + _EPSILON)
        return inputs * (1 + self.gamma * ops.cast(norm, self.compute_dtype)) + self.beta

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


@keras.saving.register_keras_serializable("marsls_keras")
class ConvNeXtBlock(keras.layers.Layer):
    """Apply a residual block of ConvNeXt or ConvNeXt V2: x + gamma mlp(norm(depthwise(x))), under stochastic depth.

    The branch is a depthwise 7 x 7 convolution, LayerNorm, linear to 4 C, exact GELU, linear to C. The first version
    multiplies it by a learned scale per channel, gamma; the second has `GlobalResponseNormalization` after the GELU
    instead.

    Args:
        response: Whether it is a block of the second version.
        drop_path: Probability that a sample skips the branch in training.
        scale: Initial value of gamma.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, H, W, C), of any size.
        training: Whether the branch is skipped.

    Returns:
        (B, H, W, C), in the layer's compute dtype.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Liu et al., "A ConvNet for the 2020s", CVPR 2022; Woo et al., "ConvNeXt V2", CVPR 2023.

    Example:
        >>> layer = ConvNeXtBlock(response=True, drop_path=0.1)
        >>> tuple(layer(np.ones((1, 8, 8, 4), "float32")).shape)
        (1, 8, 8, 4)
    """

    def __init__(self, response: bool = False, drop_path: float = 0.0, scale: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.response, self.drop_path, self.scale = response, drop_path, scale
        policy = self.dtype_policy
        self.depthwise = layers.DepthwiseConv2D(
            7, padding="same", depthwise_initializer=_normal(), dtype=policy, name="conv_dw"
        )
        self.norm = layers.LayerNormalization(epsilon=_EPSILON, dtype=policy, name="norm")
        self.response_norm = GlobalResponseNormalization(dtype=policy, name="mlp_grn") if response else None
        self.skip = DropPath(drop_path, dtype=policy, name="drop_path")

    def build(self, input_shape: Any) -> None:
        channels, policy = input_shape[-1], self.dtype_policy
        self.depthwise.build(input_shape)
        self.norm.build(input_shape)
        self.fc1 = layers.Dense(4 * channels, kernel_initializer=_normal(), dtype=policy, name="mlp_fc1")
        self.fc2 = layers.Dense(channels, kernel_initializer=_normal(), dtype=policy, name="mlp_fc2")
        self.fc1.build((None, channels))
        self.fc2.build((None, 4 * channels))
        if self.response_norm is not None:
            self.response_norm.build((*input_shape[:-1], 4 * channels))
        else:
            self.gamma = self.add_weight(
                shape=(channels,), initializer=keras.initializers.Constant(self.scale), name="gamma"
            )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x = ops.gelu(self.fc1(self.norm(self.depthwise(inputs))), approximate=False)
        if self.response_norm is not None:
            x = self.fc2(self.response_norm(x))
        else:
            x = self.fc2(x) * self.gamma
        return inputs + self.skip(x, training=training)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "response": self.response, "drop_path": self.drop_path, "scale": self.scale}
