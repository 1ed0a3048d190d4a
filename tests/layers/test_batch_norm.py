"""The fused batch normalisation against NumPy and keras.layers.BatchNormalization, on both backends."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from marsls_keras.layers import BatchNormalization

SHAPE = (3, 4, 5, 2)


@pytest.fixture
def policy():
    """Sets a precision for one test."""
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def inputs(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(3, 2, shape).astype(np.float32)


def built(kind=BatchNormalization, shape=SHAPE, **options):
    """Return a layer whose variables all have different values."""
    layer = kind(momentum=0.9, **options)
    layer.build(shape)
    generator = np.random.default_rng(1)
    for variable in layer.weights:
        variable.assign(generator.uniform(0.5, 2, variable.shape))
    return layer


def values(layer):
    return {variable.name: variable.numpy() for variable in layer.weights}


def gradients(layer, x, training):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(tf.sin(tf.cast(layer(x, training=training), tf.float32)))
    return [np.array(g) for g in tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])]


def operations(layer, **arguments):
    graph = tf.function(lambda x: layer(x, **arguments)).get_concrete_function(tf.TensorSpec(SHAPE)).graph
    return {operation.type for operation in graph.get_operations()}


def test_training_normalises_with_the_batch_and_moves_the_statistics():
    x, layer = inputs(), built()
    before, outputs, after = values(layer), layer(x, training=True).numpy(), values(layer)
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))  # of the batch, divided by N and not by N - 1
    expected = before["gamma"] * (x - mean) / np.sqrt(variance + 1e-3) + before["beta"]
    assert outputs == pytest.approx(expected, abs=1e-5)
    assert after["moving_mean"] == pytest.approx(0.9 * before["moving_mean"] + 0.1 * mean, rel=1e-5)
    assert after["moving_variance"] == pytest.approx(0.9 * before["moving_variance"] + 0.1 * variance, rel=1e-5)


def test_inference_normalises_with_the_moving_statistics_and_leaves_them():
    x, layer = inputs(), built()
    w = values(layer)
    expected = w["gamma"] * (x - w["moving_mean"]) / np.sqrt(w["moving_variance"] + 1e-3) + w["beta"]
    assert layer(x).numpy() == pytest.approx(expected, abs=1e-5)
    assert all(np.array_equal(value, w[name]) for name, value in values(layer).items())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"scale": False}, {"center": False}, {"epsilon": 1e-7}, {"trainable": False}, {"axis": 3}]
)
def test_values_statistics_and_gradients_are_those_of_keras(training, options):
    x = inputs()
    ours, theirs = built(**options), built(keras.layers.BatchNormalization, **options)
    assert [(v.name, v.shape, v.trainable) for v in ours.weights] == [
        (v.name, v.shape, v.trainable) for v in theirs.weights
    ]
    for a, b in zip(gradients(ours, x, training), gradients(theirs, x, training), strict=True):
        assert a == pytest.approx(b, abs=2e-5, rel=1e-4)
    assert ours(x, training=training).numpy() == pytest.approx(theirs(x, training=training).numpy(), abs=1e-5)
    assert np.concatenate(list(values(ours).values())) == pytest.approx(
        np.concatenate(list(values(theirs).values())), rel=1e-5
    )


@pytest.mark.parametrize(
    "shape,options", [((6, 4), {}), ((3, 4, 5, 6, 2), {}), ((3, 2, 4, 5), {"axis": 1}), (SHAPE, {"renorm": True})]
)
def test_what_the_kernel_cannot_do_is_left_to_keras(shape, options):
    x = inputs(shape)
    ours, theirs = built(shape=shape, **options), built(keras.layers.BatchNormalization, shape, **options)
    assert np.array_equal(ours(x, training=True), theirs(x, training=True))
    assert all(np.array_equal(a, b) for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True))


def test_masked_pixels_do_not_count():
    x, mask = inputs(), np.random.default_rng(2).integers(0, 2, SHAPE[:3]).astype(bool)
    layer = built()
    before = values(layer)["moving_mean"]
    layer(x, training=True, mask=mask)
    assert values(layer)["moving_mean"] == pytest.approx(0.9 * before + 0.1 * x[mask].mean(0), rel=1e-4)


def test_the_kernel_is_used_where_it_can_be():
    assert "FusedBatchNormV3" in operations(built()) & operations(built(), training=True)
    assert "FusedBatchNormV3" not in operations(built(synchronized=True), training=True)
    assert "FusedBatchNormV3" not in operations(built(trainable=False), training=True)


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_statistics_in_float32(policy, name):
    exact = built()(inputs(), training=True).numpy()
    policy(name)
    layer, x = built(), inputs()
    outputs = layer(x, training=True)
    assert outputs.dtype == name.removeprefix("mixed_") and layer.moving_mean.dtype == "float32"
    assert tf.cast(outputs, tf.float32).numpy() == pytest.approx(exact, abs=0.05)
    half = np.array(tf.cast(tf.cast(x, outputs.dtype), tf.float32))
    assert values(layer)["moving_mean"] == pytest.approx(
        0.9 * values(built())["moving_mean"] + 0.1 * half.mean((0, 1, 2)), rel=1e-4
    )


def test_xla_computes_the_same():
    x, plain, compiled = inputs(), built(), built()
    step = tf.function(lambda x: compiled(x, training=True), jit_compile=True)
    assert step(x).numpy() == pytest.approx(plain(x, training=True).numpy(), abs=1e-5)
    assert values(compiled)["moving_variance"] == pytest.approx(values(plain)["moving_variance"], rel=1e-5)


JAX = """
import sys
import keras, numpy as np
from marsls_keras.layers import BatchNormalization
assert keras.backend.backend() == "jax"
layer = BatchNormalization(momentum=0.9)
outputs = layer(np.load(sys.argv[1]), training=True)
np.savez(sys.argv[2], outputs=outputs, mean=layer.moving_mean.numpy(), variance=layer.moving_variance.numpy())
"""


def test_jax_computes_the_same(tmp_path):
    x, layer = inputs(), BatchNormalization(momentum=0.9)
    np.save(tmp_path / "x.npy", x)
    outputs = layer(x, training=True).numpy()
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", JAX, tmp_path / "x.npy", tmp_path / "out.npz"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    there = np.load(tmp_path / "out.npz")
    assert there["outputs"] == pytest.approx(outputs, abs=1e-5)
    assert there["mean"] == pytest.approx(layer.moving_mean.numpy(), rel=1e-5)
    assert there["variance"] == pytest.approx(layer.moving_variance.numpy(), rel=1e-5)
