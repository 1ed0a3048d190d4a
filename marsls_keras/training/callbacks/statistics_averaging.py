"""Moving average of the batch-normalisation statistics that fits the moving average of the weights (EMA)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops


def batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Return the batch-normalisation layers of a network.

    Example:
        >>> norm = keras.layers.BatchNormalization()
        >>> batch_norms(keras.Sequential([keras.Input((2,)), norm, keras.layers.Dense(1)])) == [norm]
        True
    """
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


class StatisticsAverage(keras.callbacks.Callback):
    """Average the batch-normalisation statistics of each batch with the decay of the optimiser's weight average.

    The network's own moving statistics belong to the weights of the last few steps. Weights averaged over hundreds of
    steps give other activations, most of all in the middle of training, when the weights change fast. So the statistics
    of each batch enter this average with the same share as the weights they were computed with enter the weight
    average; the batches of one update divide the share. An average of the moving statistics, which are averages
    themselves, would lag behind the averaged weights.

    This callback must be called before the one that saves the state.

    Attributes:
        values: All averages concatenated, float32 (n,); None before the first step.

    Example:
        >>> average = StatisticsAverage()  # doctest: +SKIP
        >>> model.fit(batches, epochs=60, callbacks=[average])  # doctest: +SKIP
        >>> average.lend()  # the layers have the averages now  # doctest: +SKIP
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Compile the averaging step, and read the moving statistics before the first step."""
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
        """Add the statistics of the batch to the average."""
        if not self._variables:
            return
        counter, now = (
            self._optimizer._iterations,  # counts batches; under accumulation the count of updates is no variable
            None,
        )
        if keras.backend.backend() == "jax":  # within an epoch Keras keeps the variables outside the model
            state = self.model._jax_state
            (counter,) = _found([counter], self.model.optimizer.variables, state["optimizer_variables"])
            now = _found(self._variables, self.model.non_trainable_variables, state["non_trainable_variables"])
        # The first batch is the whole average, as in the optimiser at its first update.
        done, before = (0, np.zeros_like(self._moving)) if self.values is None else (self._updates, self.values)
        self.values, self._moving = self._step(before, self._moving, now, ops.cast(done, "float32"))
        self._updates = self._optimizer.updates(_number(counter))

    def lend(self) -> None:
        """Set the statistics of the model's layers to the averages; before the first step, leave them unchanged."""
        if self.values is None:
            return
        variables = _statistics(batch_norms(self.model))
        ends = np.cumsum([variable.shape[0] for variable in variables])[:-1]
        for variable, value in zip(variables, np.split(keras.ops.convert_to_numpy(self.values), ends), strict=True):
            variable.assign(value)


def _statistics(layers: list[keras.layers.BatchNormalization]) -> list[keras.Variable]:
    """Return moving mean and moving variance of each layer, in this order."""
    return [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]


def _number(counter: Any) -> int:
    """Return a counter as an int."""
    return int(ops.convert_to_numpy(counter))  # int alone fails for a variable that several devices share


def _found(variables: list[Any], among: list[Any], values: list[Any]) -> list[Any]:
    """Return the values of some variables, given a longer list of variables and their values."""
    places = {id(variable): i for i, variable in enumerate(among)}
    return [values[places[id(variable)]] for variable in variables]


def _compiled(
    layers: list[keras.layers.BatchNormalization], decay: Callable[[Any], Any], accumulate: int
) -> Callable[..., Any]:
    """Compile one function that averages the statistics of all layers, which is faster than one call per variable.

    Args:
        layers: The batch-normalisation layers.
        decay: Function from the number of earlier updates to the decay of the average.
        accumulate: Batches per update.

    Returns:
        A function of the average, the moving statistics before the batch, those after it (None reads them from the
        layers) and the number of updates. It returns the new average and the moving statistics after the batch.
    """
    variables = _statistics(layers)
    sizes = [variable.shape[0] for variable in variables]
    momentum = np.repeat(np.asarray([layer.momentum for layer in layers for _ in range(2)], np.float32), sizes)
    # Rounding must not make a variance negative.
    least = np.repeat(np.asarray([-np.inf, 0] * len(layers), np.float32), sizes)

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
