"""Schedule, decay and moving average against their formulas."""

import math

import keras
import numpy as np
import pytest

from marsls_keras.config import Training
from marsls_keras.models import build_model
from marsls_keras.training.optim import build_optimizer


def rate(optimizer, step: int) -> float:
    optimizer.iterations.assign(step)
    return float(optimizer.learning_rate)


def cosine(peak: float, done: float) -> float:
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def test_linear_warm_up_then_cosine_to_zero():
    optimizer = build_optimizer(Training(epochs=10, warmup_epochs=2, learning_rate=0.01), steps_per_epoch=5)
    optimizer.build([keras.Variable(np.zeros(1))])
    # Ten steps up, forty down.
    expected = {0: 0.0, 1: 0.001, 5: 0.005, 9: 0.009, 10: 0.01, 20: cosine(0.01, 0.25), 30: 0.005, 40: cosine(0.01, 0.75), 50: 0.0, 60: 0.0}
    assert {step: rate(optimizer, step) for step in expected} == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_without_warm_up_the_first_step_has_the_full_rate():
    optimizer = build_optimizer(Training(epochs=4, warmup_epochs=0, learning_rate=0.02), steps_per_epoch=5)
    optimizer.build([keras.Variable(np.zeros(1))])
    expected = {0: 0.02, 5: cosine(0.02, 0.25), 10: 0.01, 19: cosine(0.02, 0.95), 20: 0.0}
    assert {step: rate(optimizer, step) for step in expected} == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_a_warm_up_of_part_of_an_epoch():
    optimizer = build_optimizer(Training(epochs=2, warmup_epochs=0.5, learning_rate=0.01), steps_per_epoch=8)
    optimizer.build([keras.Variable(np.zeros(1))])
    assert [rate(optimizer, step) for step in (2, 4, 10)] == pytest.approx([0.005, 0.01, 0.005], rel=1e-5)


def test_only_kernels_decay():
    model = build_model("unet", base_filters=2, depth=1)
    for variable in model.trainable_variables:
        variable.assign(np.full(variable.shape, 2.0))
    optimizer = build_optimizer(Training(epochs=2, warmup_epochs=0, learning_rate=0.1, weight_decay=0.05), steps_per_epoch=5)
    optimizer.apply([np.zeros(v.shape, np.float32) for v in model.trainable_variables], model.trainable_variables)
    # A zero gradient moves nothing; what changes is the decay alone: w - learning rate · decay · w.
    names = {"kernel": 2 * (1 - 0.1 * 0.05), "bias": 2.0, "gamma": 2.0, "beta": 2.0}
    assert {v.name for v in model.trainable_variables} == set(names)
    for variable in model.trainable_variables:
        assert variable.numpy() == pytest.approx(np.full(variable.shape, names[variable.name]), rel=1e-6), variable.path


def adamw(start: np.ndarray, gradients: list[np.ndarray], rates: list[float], decay: float, momentum: float | None):
    """AdamW and the moving average of its results, in float64."""
    w, m, v, average = start.astype(np.float64), 0.0, 0.0, None
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        w = w - lr * decay * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)
        average = w if average is None or momentum is None else momentum * average + (1 - momentum) * w
    return w, average


def test_steps_and_moving_average_equal_numpy():
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(0, 1, (3, 2)), [rng.normal(0, 1, (3, 2)).astype(np.float32) for _ in range(6)]
    variable = keras.Variable(start, dtype="float32", name="kernel")
    optimizer = build_optimizer(Training(epochs=4, warmup_epochs=1, learning_rate=0.1, weight_decay=0.02, ema_decay=0.7), steps_per_epoch=2)
    for gradient in gradients:
        optimizer.apply([gradient], [variable])
    rates = [0.0, 0.05, *(cosine(0.1, k / 6) for k in range(4))]
    weights, average = adamw(start, gradients, rates, 0.02, 0.7)
    assert variable.numpy() == pytest.approx(weights, rel=1e-4, abs=1e-5)
    optimizer.finalize_variable_values([variable])
    assert variable.numpy() == pytest.approx(average, rel=1e-4, abs=1e-5)
    assert np.abs(weights - average).max() > 0.01


def test_without_a_moving_average_the_weights_stay_their_own():
    variable = keras.Variable(np.ones(3), dtype="float32", name="kernel")
    optimizer = build_optimizer(Training(epochs=4, warmup_epochs=0, ema_decay=None), steps_per_epoch=2)
    for _ in range(3):
        optimizer.apply([np.ones(3, np.float32)], [variable])
    own = variable.numpy()
    optimizer.finalize_variable_values([variable])
    assert np.array_equal(variable.numpy(), own) and (own < 1).all()
    assert not any("average" in v.name for v in optimizer.variables)
