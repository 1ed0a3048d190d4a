"""Loss, metrics and training of a network with several heads, on a network small enough to compute by hand."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from marsls_keras.layers import MeanProbability
from marsls_keras.losses import build_loss
from marsls_keras.metrics import SegmentationCounts
from marsls_keras.models import build_model
from marsls_keras.models.heads import MultiHeadModel
from marsls_keras.training.multi_device import LossScale

PENALTY = 0.01


def network(detection=True):
    """Build a network with two masks, of half and full size, and a penalty on one kernel."""
    inputs = keras.Input((None, None, 2))
    whole = layers.Conv2D(1, 1, kernel_regularizer=keras.regularizers.L2(PENALTY), dtype="float32", name="mask_whole")(
        inputs
    )
    half = layers.Conv2D(1, 1, dtype="float32", name="mask_half")(layers.AveragePooling2D(2)(inputs))
    mask = MeanProbability(dtype="float32", name="mask")([half, whole], inputs)
    if not detection:
        return MultiHeadModel(inputs, mask)
    landslide = layers.Dense(1, dtype="float32", name="landslide")(
        layers.GlobalAveragePooling2D(dtype="float32")(inputs)
    )
    return MultiHeadModel(inputs, {"mask": mask, "landslide": landslide})


@pytest.fixture
def batch():
    """Return images, masks and weights; the second image has landslide at weight 0 only, the third has weight 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 4, 6, 2)).astype(np.float32)
    y, w = np.zeros((2, 4, 4, 6, 1), np.float32)
    y[:3, :2] = 1
    y[0, 2, 3:] = 1  # half of two blocks of 2 x 2 pixels
    w[:] = 1
    w[1, :2] = 0
    w[2] = 0
    w[0, 1, 1] = 0
    return x, y, w


def surprise(z, y):
    """Return the binary cross-entropy of logits."""
    return np.log1p(np.exp(-z)) * y + np.log1p(np.exp(z)) * (1 - y)


def by_hand(model, x, y, w, detection):
    """Compute the loss in training and in evaluation with NumPy."""
    kernels = {name: [v.numpy() for v in model.get_layer(name).weights] for name in ("mask_whole", "mask_half")}
    (a, a0), (b, b0) = kernels.values()
    whole = x @ a[0, 0] + a0
    pooled = x.reshape(4, 2, 2, 3, 2, 2).mean((2, 4))
    half = pooled @ b[0, 0] + b0
    known = w.reshape(4, 2, 2, 3, 2, 1).mean((2, 4))
    truth = (y * w).reshape(4, 2, 2, 3, 2, 1).mean((2, 4)) / np.where(known, known, 1)
    assert ((truth > 0) & (truth < 1)).any() and ((known > 0) & (known < 1)).any()
    costs = [np.sum(surprise(whole, y) * w) / w.sum(), np.sum(surprise(half, truth) * known) / known.sum()]
    p = (1 / (1 + np.exp(-whole)) + tf.image.resize(1 / (1 + np.exp(-half)), (4, 6)).numpy()) / 2
    joined = np.sum(surprise(np.log(p / (1 - p)), y) * w) / w.sum()
    extra = PENALTY * np.sum(a**2)
    if detection:
        kernel, bias = (v.numpy() for v in model.get_layer("landslide").weights)
        logits = (x.mean((1, 2)) @ kernel + bias)[:, 0]
        label = np.array([1, 0, 0, 0])
        extra += surprise(logits, label)[[0, 1, 3]].mean()  # the third image does not count
    return np.mean(costs) + extra, joined + extra, (p >= 0.5)


@pytest.mark.parametrize("detection", [True, False])
def test_the_loss_by_hand_in_training_and_evaluation(batch, detection):
    x, y, w = batch
    model = network(detection)
    metric = SegmentationCounts()
    model.compile("sgd", loss=build_loss({"bce": 1}), weighted_metrics=[metric], jit_compile=False)
    training, evaluation, predicted = by_hand(model, x, y, w, detection)
    assert model.compute_loss(x, y, model(x, training=True), w).numpy() == pytest.approx(training, rel=1e-5)
    assert model.compute_loss(x, y, model(x), w).numpy() == pytest.approx(evaluation, rel=1e-5)
    found = model.evaluate(x, y, sample_weight=w, batch_size=4, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(evaluation, rel=1e-5)
    counts = metric.counts()
    assert (counts.tp, counts.fp) == (np.sum(predicted * y * w), np.sum(predicted * (1 - y) * w))
    assert counts.tp + counts.fp + counts.fn + counts.tn == w.sum()
    # The first step shows the loss before it, with the same count of pixels.
    assert model.train_on_batch(x, y, w, return_dict=True)["loss"] == pytest.approx(training, rel=1e-5)
    assert metric.counts() == counts


def test_without_weights_every_pixel_counts(batch):
    x, y, _ = batch
    model = network()
    model.compile(loss=build_loss({"bce": 1}))
    with_ones = model.compute_loss(x, y, model(x, training=True), np.ones_like(y))
    assert model.compute_loss(x, y.astype(np.uint8), model(x, training=True)).numpy() == pytest.approx(
        float(with_ones), rel=1e-6
    )


def test_predictions_are_the_outputs(batch):
    x, *_ = batch
    model = network()
    predicted = model.predict(x, batch_size=2, verbose=0)
    assert all(predicted[name] == pytest.approx(values.numpy(), abs=1e-6) for name, values in model(x).items())


@pytest.mark.parametrize("jit", [False, True])
def test_training_lowers_the_loss_with_xla_and_without(batch, jit):
    x, y, w = batch
    model = network()
    model.compile(LossScale(keras.optimizers.Adam(0.1)), build_loss({"focal": 0.5, "iou": 0.5}), jit_compile=jit)
    losses = [float(model.train_on_batch(x, y, w)) for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]


JAX = """
import sys
import keras, numpy as np
from marsls_keras.losses import build_loss
from marsls_keras.models import build_model

assert keras.backend.backend() == "jax"
with np.load(sys.argv[1]) as arrays:
    x, y, w = (arrays[name] for name in "xyw")
    small = {"filters": 2, "poolings": 1, "block": "double_conv", "tile_size": 8}
    model = build_model("rmau_net", bands=2, **small, heads=[64, 128], detection=True)
    model.set_weights([arrays[f"weight_{i}"] for i in range(len(model.weights))])
model.compile(keras.optimizers.SGD(0.0), build_loss({"focal": 0.5, "iou": 0.5}))
evaluated = model.evaluate(x, y, sample_weight=w, batch_size=4, verbose=0)
outputs = {name: np.array(values) for name, values in model(x).items()}
model.reset_metrics()  # else the loss would be a mean with the evaluation's
np.savez(sys.argv[2], evaluated=evaluated, trained=model.train_on_batch(x, y, w), **outputs)
"""


@pytest.mark.slow
def test_jax_computes_the_same(batch, tmp_path):
    x, y, w = batch
    model = build_model(
        "rmau_net", bands=2, filters=2, poolings=1, block="double_conv", tile_size=8, heads=[64, 128], detection=True
    )
    weights = {f"weight_{i}": value for i, value in enumerate(model.get_weights())}
    np.savez(tmp_path / "in.npz", x=x, y=y, w=w, **weights)
    command = [sys.executable, "-c", JAX, tmp_path / "in.npz", tmp_path / "out.npz"]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    model.compile(loss=build_loss({"focal": 0.5, "iou": 0.5}))
    here = model(x)
    with np.load(tmp_path / "out.npz") as there:
        assert all(there[name] == pytest.approx(values.numpy(), abs=1e-4) for name, values in here.items())
        assert there["evaluated"] == pytest.approx(float(model.compute_loss(x, y, here, w)), rel=1e-4)
        assert there["trained"] == pytest.approx(float(model.compute_loss(x, y, model(x, training=True), w)), rel=1e-4)


@pytest.mark.slow
def test_two_devices_compute_the_loss_and_the_gradient_of_the_whole_batch():
    # In a separate process, since logical devices must be configured at the start.
    result = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]


DEVICES = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from marsls_keras.losses import build_loss
from marsls_keras.models import build_model
from marsls_keras.runtime import scope

rng = np.random.default_rng(0)
x = rng.normal(size=(4, 8, 8, 3)).astype("float32")
y = (rng.random((4, 8, 8, 1)) > 0.6).astype("float32")
y[1:3] = 0
w = np.ones_like(y)
w[3] = 0
weights = None
results = []
for devices in (1, 2):
    with scope(devices):
        small = {"filters": 2, "poolings": 1, "block": "double_conv", "attention": "none"}
        model = build_model("rmau_net", bands=3, **small, detection=True)
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = devices > 1
        model.compile(keras.optimizers.SGD(0.1), build_loss({"focal": 0.5, "iou": 0.5}), jit_compile=False)
    weights = weights or model.get_weights()
    model.set_weights(weights)
    data = tf.data.Dataset.from_tensors((x, y, w)).unbatch().batch(4)
    history = model.fit(data, verbose=0).history["loss"]
    results.append((history[0], model.get_weights(), model.evaluate(data, verbose=0)))
(a, b, c), (d, e, f) = results
assert abs(a - d) < 1e-5 * abs(a) and abs(c - f) < 1e-4 * abs(c), (a, d, c, f)
moved = max(np.abs(v - u).max() for v, u in zip(b, weights))
apart = max(np.abs(v - u).max() for v, u in zip(b, e))
assert moved > 1e-3 and all(np.allclose(v, u, atol=1e-4) for v, u in zip(b, e)), apart
"""
