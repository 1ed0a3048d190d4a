"""Averages of the weights: moving average (EMA), mean over epochs (SWA), and setting them for a `with` block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from marsls_keras.lazy_imports import keras

if TYPE_CHECKING:  # it imports Keras, and this module is imported without it
    from marsls_keras.training.callbacks.statistics_averaging import StatisticsAverage


def ema_decay(momentum: float, updates: Any, warmup: bool = False) -> Any:
    """Return the decay of the moving average of the weights at an update, a float32 scalar.

    Args:
        momentum: The decay, `training.ema_decay`.
        updates: Number of earlier updates, a float32 scalar. After the first update the average is the weights.
        warmup: Whether the decay at update t is at most (1 + t) / (10 + t), `training.ema_warmup`.

    Example:
        >>> float(ema_decay(0.99, np.float32(8), warmup=True)), float(ema_decay(0.99, np.float32(0)))
        (0.5, 0.0)
    """
    ops = keras.ops
    decay = ops.minimum(momentum, (1 + updates) / (10 + updates)) if warmup else momentum
    return ops.where(updates > 0, decay, 0.0)


def moved_average(average: Any, weight: Any, decay: Any) -> Any:
    """Return the moving average of a weight after an update: decay · average + (1 - decay) · weight.

    Example:
        >>> moved_average(2.0, 4.0, 0.75)
        2.5
    """
    return decay * average + (1 - decay) * weight


@contextmanager
def preserved(model: keras.Model) -> Iterator[None]:
    """Restore all variables of a model after the block: weights, moving statistics and the state of random layers.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> with preserved(model):
        ...     _ = model.layers[0].bias.assign([5.0])
        >>> model.layers[0].bias.numpy().tolist()
        [0.0]
    """
    own = [(variable, np.copy(keras.ops.convert_to_numpy(variable))) for variable in model.variables]
    try:
        yield
    finally:
        for variable, value in own:
            variable.assign(value)


@contextmanager
def averaged_weights(model: keras.Model, average: StatisticsAverage | None = None) -> Iterator[None]:
    """Set the trainable weights to the optimiser's moving average within the block, and restore them after it.

    Args:
        model: The compiled model.
        average: The moving average of the batch-normalisation statistics, which are then set as well; None keeps those
            of the model.

    Example:
        >>> with averaged_weights(model):  # doctest: +SKIP
        ...     loss = model.evaluate(batches)
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # mixed_float16 wraps it
    with preserved(model):
        for variable, weights in zip(model.trainable_variables, optimizer.averages, strict=True):
            # Copied through the host: under JAX both would share a buffer, and a step that donates one deletes both.
            variable.assign(np.copy(keras.ops.convert_to_numpy(weights)))
        if average is not None:
            average.lend()
        yield


class WeightMean:
    """Average the trainable weights at the ends of several epochs (stochastic weight averaging, SWA).

    Source: Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018.

    Attributes:
        count: Number of epochs so far.
        sums: Sum of each trainable variable over these epochs, float32.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> mean = WeightMean()
        >>> for value in (1.0, 3.0):  # the bias at the ends of two epochs
        ...     _ = model.layers[0].bias.assign([value])
        ...     mean.add(model)
        >>> with mean.lent(model, batches=[]):
        ...     model.layers[0].bias.numpy().tolist()
        [2.0]
    """

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[np.ndarray] = []

    def add(self, model: keras.Model) -> None:
        """Add the model's current weights to the mean."""
        weights = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
        self.sums = (
            [total + w for total, w in zip(self.sums, weights, strict=True)]
            if self.count
            else [np.copy(w) for w in weights]
        )
        self.count += 1

    @contextmanager
    def lent(self, model: keras.Model, batches: Iterable[Any]) -> Iterator[None]:
        """Set the weights to the mean and recalibrate batch normalisation within the block; restore both after it.

        Args:
            model: The model.
            batches: Training batches, tuples whose first element is the images (B, H, W, C).
        """
        with preserved(model):
            for variable, total in zip(model.trainable_variables, self.sums, strict=True):
                variable.assign(total / self.count)
            recalibrate(model, batches)
            yield


def recalibrate(model: keras.Model, batches: Iterable[Any]) -> None:
    """Set the moving statistics of batch normalisation to the mean of those of the given batches; keep the weights.

    Batches count by their sizes. Averaged weights give other activations than any weights during training, so the
    statistics collected during training do not fit them.

    Args:
        model: The model.
        batches: Tuples whose first element is the images (B, H, W, C). Not read if the model has no batch
            normalisation.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
        >>> recalibrate(model, [(np.array([[1.0, 4.0], [3.0, 8.0]], "float32"),)])
        >>> model.layers[0].moving_mean.numpy().tolist()
        [2.0, 6.0]
    """
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in layers]
    try:
        seen = 0
        for images, *_ in batches if layers else ():
            number = int(images.shape[0])
            for layer in layers:
                layer.momentum = seen / (seen + number)  # so that each image has the same share
            seen += number
            model(keras.ops.convert_to_tensor(images), training=True)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
