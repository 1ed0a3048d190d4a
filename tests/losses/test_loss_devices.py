"""Losses on two devices and on the JAX backend, in separate processes, since both are chosen at the start."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from marsls_keras.losses import LOSSES, build_loss

BOTH = ("pooled", "per_tile")


def batch(tiles: int = 4):
    rng = np.random.default_rng(0)
    truth = np.zeros((tiles, 8, 8, 1), np.float32)
    for i, tile in enumerate(truth):
        tile[i : i + 4, 1 : 3 + i] = 1
    weight = rng.choice([0, 1, 1, 2], truth.shape).astype(np.float32)
    weight[0] = 0
    return truth, rng.normal(0, 2, truth.shape).astype(np.float32), weight


def values_and_gradients(truth, logits, weight) -> dict[str, list]:
    result = {}
    for name in LOSSES:
        for reduction in BOTH:
            loss, x = build_loss({name: {"reduction": reduction}}, np.array([0, 0, 0, 1])), tf.constant(logits)
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = loss(truth, x, weight)
            result[f"{name} {reduction}"] = [float(value), tape.gradient(value, x).numpy().ravel().tolist()]
    return result


def run(code: str, folder: Path, **environment: str) -> dict:
    """Run code in a separate process, with the batch in batch.npz, and return the JSON that it prints last."""
    np.savez(folder / "batch.npz", *batch())
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


TWO_DEVICES = """
import json
import numpy as np
import tensorflow as tf
cpu, *_ = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from marsls_keras.losses import LOSSES, build_loss

truth, logits, weight = np.load("batch.npz").values()
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
losses = {
    f"{name} {reduction}": build_loss({name: {"reduction": reduction}}, np.array([0, 0, 0, 1]))
    for name in LOSSES
    for reduction in ("pooled", "per_tile")
}


def part(context, values):  # three tiles on the one device, one on the other
    return tf.constant(values[3:] if context.replica_id_in_sync_group else values[:3])


@tf.function
def step(truth, logits, weight):
    result = {}
    for name, loss in losses.items():
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(truth, logits, weight)
        result[name] = value, tape.gradient(value, logits)
    return result


distribute = strategy.experimental_distribute_values_from_function
parts = [distribute(lambda c, v=v: part(c, v)) for v in (truth, logits, weight)]
shares = {
    name: [[float(v) for v in strategy.experimental_local_results(value)],
           np.concatenate([g.numpy() for g in strategy.experimental_local_results(gradient)]).ravel().tolist()]
    for name, (value, gradient) in strategy.run(step, parts).items()
}


def trained(scope):
    with scope:
        keras.utils.set_random_seed(1)
        layers = [keras.layers.Conv2D(3, 3, activation="tanh"), keras.layers.Conv2DTranspose(1, 3)]
        model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        model.compile(keras.optimizers.SGD(1.0), loss=build_loss({"bce": 0.5, "dice": 0.5}), jit_compile=False)
    batches = tf.data.Dataset.from_tensors((logits, truth, weight))
    before = model.get_weights()
    shown = model.fit(batches, verbose=0).history["loss"][0], model.evaluate(batches, verbose=0)
    return shown, [w.ravel().tolist() for w in model.get_weights()], [w.ravel().tolist() for w in before]


one, two = trained(tf.distribute.get_strategy().scope()), trained(strategy.scope())
print(json.dumps({"shares": shares, "one": one, "two": two}))
"""


@pytest.fixture(scope="module")
def two_devices(tmp_path_factory):
    return run(TWO_DEVICES, tmp_path_factory.mktemp("devices"), CUDA_VISIBLE_DEVICES="-1")


@pytest.mark.slow
def test_a_step_on_two_devices_is_the_step_on_one(two_devices):
    (one, after_one, before), (two, after_two, before_two) = two_devices["one"], two_devices["two"]
    assert before == before_two
    for a, b, c in zip(after_one, after_two, before, strict=True):
        assert a == pytest.approx(b, abs=1e-6) and np.abs(np.subtract(a, c)).max() > 1e-3
    assert one == pytest.approx(two, abs=1e-6)  # what fit and evaluate show


@pytest.mark.slow
def test_two_devices_share_the_loss_and_gradient_of_the_whole_batch(two_devices):
    for name, (value, derivative) in values_and_gradients(*batch()).items():
        parts, gradient = two_devices["shares"][name]
        if name == "lovasz pooled":
            continue
        assert parts == pytest.approx([value / 2] * 2, rel=1e-5, abs=1e-7), name
        assert gradient == pytest.approx(derivative, rel=1e-4, abs=1e-7), name


@pytest.mark.slow
def test_a_pooled_lovasz_on_two_devices_is_the_mean_of_theirs(two_devices):
    (parts, gradient), each = two_devices["shares"]["lovasz pooled"], []
    for tiles in (slice(None, 3), slice(3, None)):
        each.append(values_and_gradients(*(a[tiles] for a in batch()))["lovasz pooled"])
    assert parts == pytest.approx([value / 2 for value, _ in each], rel=1e-5)
    assert gradient == pytest.approx([g / 2 for _, derivative in each for g in derivative], rel=1e-4, abs=1e-7)


JAX = """
import json
import jax
import keras
import numpy as np
from marsls_keras.losses import LOSSES, build_loss

assert keras.backend.backend() == "jax"
truth, logits, weight = np.load("batch.npz").values()
losses = {
    f"{name} {reduction}": build_loss({name: {"reduction": reduction}}, np.array([0, 0, 0, 1]))
    for name in LOSSES
    for reduction in ("pooled", "per_tile")
}


@jax.jit
def compute(logits):
    return {
        name: jax.value_and_grad(lambda x, loss=loss: loss(truth, x, weight))(logits) for name, loss in losses.items()
    }


found = compute(logits).items()
print(json.dumps({name: [float(value), np.ravel(gradient).tolist()] for name, (value, gradient) in found}))
"""


@pytest.mark.slow
def test_jax_computes_the_same_values_and_gradients(tmp_path):
    computed = run(JAX, tmp_path, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    for name, (value, derivative) in values_and_gradients(*batch()).items():
        assert computed[name][0] == pytest.approx(value, rel=1e-5), name
        assert computed[name][1] == pytest.approx(derivative, rel=1e-4, abs=1e-6), name
