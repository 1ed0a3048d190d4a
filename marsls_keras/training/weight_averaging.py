"""Averages of the weights along the way of training, lent to the network for the time of an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from marsls_keras.lazy_imports import keras

if TYPE_CHECKING:  # it imports Keras, which this module is to do without
    from marsls_keras.training.callbacks.statistics_averaging import StatisticsAverage


@contextmanager
def preserved(model: keras.Model) -> Iterator[None]:
    """Give the model back all its variables after the block: weights, moving statistics and the state of random layers.

    Example:
        >>> with preserved(model):  # doctest: +SKIP
        ...     recalibrate(model, batches)  # taken back after the block
    """
    own = [(variable, np.copy(keras.ops.convert_to_numpy(variable))) for variable in model.variables]
    try:
        yield
    finally:
        for variable, value in own:
            variable.assign(value)


@contextmanager
def averaged_weights(model: keras.Model, average: StatisticsAverage | None = None) -> Iterator[None]:
    """Give the model the optimiser's moving average of its trainable weights within the block, and its own weights back after it.

    Args:
        model: The model.
        average: The average of the statistics of batch normalisation, which is lent as well; None leaves those of the
            last weights.

    Example:
        >>> with averaged_weights(model):  # doctest: +SKIP
        ...     loss = model.evaluate(batches)
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # mixed_float16 wraps it
    with preserved(model):
        for variable, weights in zip(model.trainable_variables, optimizer.averages, strict=True):
            # By way of the host: under JAX they would share a buffer, and a step that donates the one would delete the
            # other.
            variable.assign(np.copy(keras.ops.convert_to_numpy(weights)))
        if average is not None:
            average.lend()
        yield


class WeightMean:
    """Mean of the trainable weights at the ends of several epochs (Izmailov et al., "Averaging weights leads to wider optima", UAI 2018).

    Attributes:
        count: Number of epochs so far.
        sums: Sum of each trainable variable over them, float32.

    Example:
        >>> mean = WeightMean()  # doctest: +SKIP
        >>> mean.add(model)  # at the end of each of the last epochs  # doctest: +SKIP
        >>> with mean.lent(model, training_batches):  # doctest: +SKIP
        ...     loss = model.evaluate(batches)
    """

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[np.ndarray] = []

    def add(self, model: keras.Model) -> None:
        """Take the model's weights into the mean."""
        weights = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
        self.sums = (
            [total + w for total, w in zip(self.sums, weights, strict=True)]
            if self.count
            else [np.copy(w) for w in weights]
        )
        self.count += 1

    @contextmanager
    def lent(self, model: keras.Model, batches: Iterable[Any]) -> Iterator[None]:
        """Give the model the mean and the statistics that fit it within the block, and all that is its own back after it.

        Args:
            model: The model.
            batches: Training batches, tuples that begin with the images (B, H, W, C).
        """
        with preserved(model):
            for variable, total in zip(model.trainable_variables, self.sums, strict=True):
                variable.assign(total / self.count)
            recalibrate(model, batches)
            yield


def recalibrate(model: keras.Model, batches: Iterable[Any]) -> None:
    """Set the moving statistics of batch normalisation to the mean of the statistics of these batches, by their sizes; weights stay.

    Averaged weights give activations that no weights on the way have given, so the statistics of the way do not fit
    them.

    Args:
        model: The model.
        batches: Tuples that begin with the images (B, H, W, C). Not read if the model has no batch normalisation.

    Example:
        >>> recalibrate(model, [(images,) for images, *_ in training_batches])  # doctest: +SKIP
    """
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in layers]
    try:
        seen = 0
        for images, *_ in batches if layers else ():
            number = int(images.shape[0])
            for layer in layers:
                layer.momentum = seen / (seen + number)  # each image counts alike then
            seen += number
            model(keras.ops.convert_to_tensor(images), training=True)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
