"""Moving average of the statistics of batch normalisation, which goes with the moving average of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops


def batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Return the layers of batch normalisation of a network.

    Example:
        >>> [layer.name for layer in batch_norms(build_model("unet", bands=7))][:1]  # doctest: +SKIP
        ['batch_normalization']
    """
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


class StatisticsAverage(keras.callbacks.Callback):
    """Average the batches' statistics of batch normalisation as the optimiser averages the weights, with the same decay.

    The network's moving statistics are those of the weights of the last few steps. Weights that are averaged over some
    hundred steps give other activations, above all in the middle of a training, where the weights still move far. Here
    the statistics of each batch have the share in the average that the weights they come from have in the other one;
    each of the batches of an update has its part of it. To average the moving statistics, which are averages already,
    would lag behind the weights by the sum of both.

    To be called before what saves the state.

    Attributes:
        values: All averages one behind the other, float32 (n,); None before the first step.

    Example:
        >>> average = StatisticsAverage()  # doctest: +SKIP
        >>> model.fit(batches, epochs=60, callbacks=[average])  # doctest: +SKIP
        >>> average.lend()  # the layers have the averages now  # doctest: +SKIP
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Compile what a step does; the network's statistics are those that the first step begins with."""
        layers = batch_norms(self.model)
        self._variables = _statistics(layers)
        if not self._variables:
            return
        self._optimizer = getattr(
            self.model.optimizer, "inner_optimizer", self.model.optimizer
        )  # mixed_float16 wraps it
        self._step = _compiled(layers, self._optimizer.ema_decay, self._optimizer.gradient_accumulation_steps or 1)
        self._moving = np.concatenate([keras.ops.convert_to_numpy(variable) for variable in self._variables])
        self._updates = self._optimizer.updates(_number(self._optimizer._iterations))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Take the batch's statistics into the average."""
        if not self._variables:
            return
        counter, now = (
            self._optimizer._iterations,
            None,
        )  # of batches: under accumulation, that of updates is no variable
        if keras.backend.backend() == "jax":  # within an epoch the variables are elsewhere
            state = self.model._jax_state
            (counter,) = _found([counter], self.model.optimizer.variables, state["optimizer_variables"])
            now = _found(self._variables, self.model.non_trainable_variables, state["non_trainable_variables"])
        # Without an average all of it is new, as in the optimiser at its first update.
        done, before = (0, np.zeros_like(self._moving)) if self.values is None else (self._updates, self.values)
        self.values, self._moving = self._step(before, self._moving, now, ops.cast(done, "float32"))
        self._updates = self._optimizer.updates(_number(counter))

    def lend(self) -> None:
        """Give the averages to the model's layers; before the first step they keep their own."""
        if self.values is None:
            return
        variables = _statistics(batch_norms(self.model))
        ends = np.cumsum([variable.shape[0] for variable in variables])[:-1]
        for variable, value in zip(variables, np.split(keras.ops.convert_to_numpy(self.values), ends), strict=True):
            variable.assign(value)


def _statistics(layers: list[keras.layers.BatchNormalization]) -> list[keras.Variable]:
    return [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]


def _number(counter: Any) -> int:
    return int(ops.convert_to_numpy(counter))  # int alone cannot take what several devices share


def _found(variables: list[Any], among: list[Any], values: list[Any]) -> list[Any]:
    """Return the values of variables, given those of others among which they are."""
    places = {id(variable): i for i, variable in enumerate(among)}
    return [values[places[id(variable)]] for variable in variables]


def _compiled(
    layers: list[keras.layers.BatchNormalization], decay: Callable[[Any], Any], accumulate: int
) -> Callable[..., Any]:
    """Return one compiled call for a whole step: dozens of small variables, one at a time, would cost more than they are worth.

    Args:
        layers: The layers.
        decay: From the number of updates before this one to the decay of the average.
        accumulate: Batches of an update.
    """
    variables = _statistics(layers)
    sizes = [variable.shape[0] for variable in variables]
    momentum = np.repeat(np.asarray([layer.momentum for layer in layers for _ in range(2)], np.float32), sizes)
    least = np.repeat(
        np.asarray([-np.inf, 0] * len(layers), np.float32), sizes
    )  # rounding must not make a variance negative

    def step(average: Any, before: Any, now: list[Any] | None, done: Any) -> tuple[Any, Any]:
        parts = [ops.convert_to_tensor(variable) for variable in variables] if now is None else now
        moving = ops.concatenate([ops.cast(part, "float32") for part in parts])
        batch = ops.maximum((moving - momentum * before) / (1 - momentum), least)
        rate = ops.power(ops.cast(decay(done), "float32"), 1 / accumulate)
        return rate * average + (1 - rate) * batch, moving

    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(step)
    import tensorflow as tf

    return tf.function(step)
