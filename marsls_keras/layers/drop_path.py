"""Stochastic depth: skip a residual branch for random samples in training."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("marsls_keras")
class DropPath(keras.layers.Layer):
    """Drop a residual branch for random samples in training, and scale it up for the others.

    A dropped sample is 0; the others are divided by the probability of being kept, so that the expected value stays.

    Args:
        rate: Probability that a sample is dropped, in [0, 1).
        seed: Seed of the random numbers; a new one by default.
        **kwargs: Passed to keras.layers.Layer.

    Call arguments:
        inputs: Float (B, …), the branch that is to be added to another.
        training: Whether to drop.

    Returns:
        The same shape.

    Raises:
        ValueError: If the rate is out of range.

    Reference:
        Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.

    Example:
        >>> layer = DropPath(0.5, seed=0)
        >>> samples = np.ones((100, 3), "float32")
        >>> bool(np.all(layer(samples) == 1)), sorted(set(np.ravel(layer(samples, training=True)).tolist()))
        (True, [0.0, 2.0])
    """

    def __init__(self, rate: float = 0.1, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"DropPath needs a rate in [0, 1). Received: {rate}")
        self.rate, self.seed = rate, seed
        if rate:
            self.generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training or not self.rate:
            return inputs
        shape = (ops.shape(inputs)[0], *[1] * (len(inputs.shape) - 1))
        kept = ops.cast(keras.random.uniform(shape, seed=self.generator) >= self.rate, inputs.dtype)
        return inputs * kept / (1 - self.rate)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
