"""Checks that every layer must pass: a case holds a layer, its arguments and its inputs, a check tests one property."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers.weights import scramble, silent

HALF = ("mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True)
class LayerCase:
    """A layer with arguments and inputs, to be checked.

    Attributes:
        kind: Its class.
        options: Arguments of its constructor; all of them, each another than its default.
        inputs: Shape of each argument of a call, batch first; a list of shapes where the argument is a list.
        output: Shape of what it returns.
        no_gradient: Ends of the paths of variables that change nothing, such as a bias before a normalisation with the
            batch's statistics.
        tolerance: Largest difference that half precision may make, relative to the largest value.
    """

    kind: type[keras.Layer]
    options: dict[str, Any]
    inputs: tuple
    output: tuple[int, ...]
    no_gradient: tuple[str, ...] = ()
    tolerance: float = 0.05
    arrays: tuple = field(init=False)

    def __post_init__(self) -> None:
        """Draw the inputs."""
        rng = np.random.default_rng(0)
        object.__setattr__(
            self,
            "arrays",
            tuple(_nested(lambda s: rng.normal(0, 1, s).astype(np.float32), shape) for shape in self.inputs),
        )

    def __str__(self) -> str:
        """Name the case in the list of tests."""
        return self.kind.__name__

    def layer(self, **others: Any) -> keras.Layer:
        """Return a built layer whose weights all have random values."""
        made = self.kind(**self.options, **others)
        made(*self.arrays)
        return scramble(made)


def _nested(function, value):
    """Apply a function to a shape or array, or to each of a list of them."""
    return [function(item) for item in value] if isinstance(value, list) else function(value)


def _flat(arguments):
    return [item for argument in arguments for item in (argument if isinstance(argument, list) else [argument])]


def check_configuration(case: LayerCase) -> None:
    """Check that a layer restored from its configuration has the same arguments and computes the same."""
    if "__init__" in vars(case.kind):
        defaults = {
            p.name: p.default for p in inspect.signature(case.kind).parameters.values() if p.kind is not p.VAR_KEYWORD
        }
        assert case.options.keys() == defaults.keys()
        assert all(value != defaults[name] for name, value in case.options.items())
    layer = case.layer(name="mine")
    config = layer.get_config()
    for name, value in case.options.items():
        assert config[name] == value and getattr(layer, name) == value, name
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is case.kind and again.name == "mine" and again.get_config() == config
    again(*case.arrays)
    assert [(v.path, v.shape) for v in again.weights] == [(v.path, v.shape) for v in layer.weights]
    again.set_weights(layer.get_weights())
    assert np.array_equal(again(*case.arrays), layer(*case.arrays))


def check_calls(case: LayerCase) -> None:
    """Check that eager, symbolic and compiled calls agree, with static and with dynamic sizes."""
    layer = case.layer()
    eager = np.array(layer(*case.arrays))
    assert eager.shape == case.output == tuple(layer.compute_output_shape(*case.inputs)) and np.isfinite(eager).all()
    for known in (True, False):
        symbols = tuple(
            _nested(lambda s, k=known: keras.Input(s[1:] if k else (*(None for _ in s[1:-1]), s[-1])), s)
            for s in case.inputs
        )
        model = keras.Model(_flat(symbols), layer(*symbols))
        expected = [size if known else None for size in case.output[1:-1]]
        for found, size in zip(model.output_shape[1:], [*expected, case.output[-1]], strict=True):
            # A layer may know its size without that of its inputs.
            assert found == size or found in case.output and not known
        assert np.array(model(_flat(case.arrays))) == pytest.approx(eager, rel=1e-4, abs=1e-5)
        assert keras.Model.from_config(model.get_config()).output_shape == model.output_shape
    unknown = [tf.TensorSpec((*(None for _ in x.shape[:-1]), x.shape[-1])) for x in _flat(case.arrays)]
    compiled = tf.function(model, input_signature=[unknown])
    assert np.array(compiled(_flat(case.arrays))) == pytest.approx(eager, rel=1e-4, abs=1e-5)


def check_training(case: LayerCase) -> None:
    """Check the shape with training=True, and that a gradient reaches the inputs and every trainable variable."""
    keras.utils.set_random_seed(0)
    layer = case.layer()
    arrays = tuple(_nested(tf.constant, array) for array in case.arrays)
    first = _flat(arrays)[0]
    with tf.GradientTape() as tape:
        tape.watch(first)
        outputs = layer(*arrays, training=True)
        loss = tf.reduce_sum(tf.sin(3 * outputs))
    of_input, *gradients = tape.gradient(loss, [first, *(v.value for v in layer.trainable_variables)])
    assert tuple(outputs.shape) == case.output and np.isfinite(outputs).all()
    assert np.isfinite(of_input).all() and np.abs(of_input).max() > 1e-6
    dead = silent(layer.trainable_variables, gradients, 1e-6)
    assert not [path for path in dead if not path.endswith(case.no_gradient or "no such end")], dead


def check_half_precision(case: LayerCase, policy: str) -> None:
    """Check that under mixed precision a layer computes in half precision, with weights in float32 and small errors."""
    exact = case.layer()
    keras.config.set_dtype_policy(policy)
    try:
        layer = case.layer()
    finally:
        keras.config.set_dtype_policy("float32")
    layer.set_weights(exact.get_weights())
    outputs, expected = layer(*case.arrays), np.array(exact(*case.arrays))
    assert outputs.dtype == policy.removeprefix("mixed_") and {v.dtype for v in layer.trainable_variables} <= {
        "float32"
    }
    assert np.abs(tf.cast(outputs, "float32").numpy() - expected).max() < case.tolerance * np.abs(expected).max()
