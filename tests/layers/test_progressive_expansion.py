"""Progressive expansion against hand-computed values, and its projection against the definition."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from marsls_keras.layers import ProgressiveExpansion


@pytest.fixture
def policy():
    """Sets a precision for one test."""
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def inputs(shape=(2, 3, 4, 5)):
    return np.random.default_rng(0).uniform(0, 3, shape).astype(np.float32)


@pytest.mark.parametrize(
    "terms,expected",
    [
        (1, [0.5, 2.0]),
        (2, [0.5, 2.0, 0.375, 0.0]),  # 1/2 - 1/8; 2 - 2
        (3, [0.5, 2.0, 0.375, 0.0, 5 / 12, 8 / 3]),  # + 1/24; + 8/3
        (4, [0.5, 2.0, 0.375, 0.0, 5 / 12, 8 / 3, 77 / 192, -4 / 3]),  # - 1/64; - 4
    ],
)
def test_partial_sums_by_hand(terms, expected):
    layer = ProgressiveExpansion(terms)
    outputs = layer(np.array([[0.5, 2.0]], np.float32))
    assert outputs.numpy()[0] == pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert layer.compute_output_shape((None, 7, 2)) == (None, 7, len(expected)) and not layer.weights


def test_many_terms_come_near_the_logarithm():
    x = np.array([[0.0, 0.1, 0.25, 0.5]], np.float32)
    outputs = ProgressiveExpansion(24)(x).numpy()
    assert outputs[0, -4:] == pytest.approx(np.log1p(x[0]), abs=1e-6)
    assert np.abs(outputs[0, 4:8] - np.log1p(x[0])).max() > 0.03  # two terms do not


@pytest.mark.parametrize("terms", [1, 2, 3, 5])
def test_the_projection_equals_expanding_first(terms):
    layer, x = ProgressiveExpansion(terms), tf.constant(inputs())
    kernel = tf.constant(np.random.default_rng(1).normal(0, 1, (terms * 5, 6)).astype(np.float32))
    results = []
    for compute in (lambda: tf.matmul(layer(x), kernel), lambda: layer.project(x, kernel)):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            outputs = compute()
            loss = tf.reduce_sum(tf.sin(outputs))
        results.append([outputs, *tape.gradient(loss, [x, kernel])])
    for plain, fast in zip(*results, strict=True):
        assert fast.numpy() == pytest.approx(plain.numpy(), rel=1e-4, abs=1e-4 * float(np.abs(plain).max()))


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_stays_near_and_finite(policy, name):
    exact = ProgressiveExpansion(2)(inputs()).numpy()
    policy(name)
    outputs = ProgressiveExpansion(2)(inputs())
    assert outputs.dtype == name.removeprefix("mixed_")
    assert tf.cast(outputs, tf.float32).numpy() == pytest.approx(exact, abs=0.05)
    assert np.isfinite(tf.cast(ProgressiveExpansion(2)(np.full((1, 1), 200, np.float32)), tf.float32)).all()


@pytest.mark.parametrize("terms", [0, -2])
def test_no_terms_are_refused(terms):
    with pytest.raises(ValueError, match=f"Received: terms={terms}"):
        ProgressiveExpansion(terms)
