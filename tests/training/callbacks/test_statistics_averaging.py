"""Averaged batch-normalisation statistics, compared with NumPy and with recalibrated statistics.

The comparison with NumPy covers both backends and every precision.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from marsls_keras.config import Training
from marsls_keras.losses import build_loss
from marsls_keras.metrics import SegmentationCounts
from marsls_keras.models import build_model
from marsls_keras.training.callbacks.last_checkpoint import LastCheckpoint
from marsls_keras.training.callbacks.statistics_averaging import StatisticsAverage, batch_norms
from marsls_keras.training.optimizer import build_optimizer
from marsls_keras.training.weight_averaging import averaged_weights, recalibrate


@pytest.fixture
def policy():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def values(variables) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(v).copy() for v in variables]


class Record(keras.callbacks.Callback):
    """Return the number of updates and the moving statistics before the first batch and after each one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, list[np.ndarray]]] = []

    def on_train_begin(self, logs=None) -> None:
        self.on_train_batch_end(-1)

    def on_train_batch_end(self, batch, logs=None) -> None:
        if keras.backend.backend() == "jax" and batch >= 0:
            self.model.jax_state_sync()
        self.seen.append((int(self.model.optimizer.iterations), values(statistics(self.model))))


def statistics(model: keras.Model) -> list:
    return [v for layer in batch_norms(model) for v in (layer.moving_mean, layer.moving_variance)]


def batches(number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return images of smooth noise, and masks of where their first band is positive."""
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, (number, 8, 16, 16, 2)).astype(np.float32)
    return [(x, (np.cumsum(np.cumsum(x, 1), 2)[..., :1] > 0).astype(np.float32)) for x in noise]


def dataset(data) -> tf.data.Dataset:
    signature = tuple(tf.TensorSpec(part.shape, part.dtype) for part in data[0])
    return tf.data.Dataset.from_generator(lambda: iter(data), output_signature=signature).repeat()


def train(config: Training, data, callbacks, **options) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = build_model("unet", bands=2, depth=1, **options)
    model.compile(build_optimizer(config, 20), build_loss({"bce": 1.0}), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    model.fit(dataset(data), epochs=1, steps_per_epoch=len(data), verbose=0, shuffle=False, callbacks=callbacks)
    return model


SLOW = [("float32", 3), ("mixed_float16", 2)]
CASES = [("float32", 1), ("mixed_bfloat16", 1), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]


@pytest.mark.parametrize(("precision", "accumulate"), CASES)
def test_the_statistics_of_the_batches_are_averaged_as_the_weights_are(policy, precision, accumulate):
    policy(precision)
    config = Training(ema_decay=0.7, ema_warmup=True, accumulate=accumulate, warmup_epochs=0, learning_rate=0.01)
    average, record = StatisticsAverage(), Record()
    model = train(config, batches(20), [average, record], base_filters=2)
    expected: list[np.ndarray] = []
    for (done, before), (_, after) in itertools.pairwise(record.seen):
        # Solve the moving average with momentum 0.9 for the statistics of the batch.
        batch = [(a - 0.9 * b.astype(np.float64)) / 0.1 for a, b in zip(after, before, strict=True)]
        decay = (min(0.7, (1 + done) / (10 + done)) if done else 0) ** (1 / accumulate)
        expected = [decay * e + (1 - decay) * n for e, n in zip(expected, batch, strict=True)] if expected else batch
    own, weights = values(statistics(model)), values(model.trainable_variables)
    with averaged_weights(model, average):
        for found, right, live in zip(values(statistics(model)), expected, own, strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5)
            assert not np.allclose(found, live, rtol=1e-3, atol=1e-3)
    assert all(map(np.array_equal, values([*statistics(model), *model.trainable_variables]), [*own, *weights]))


def test_in_the_middle_of_a_training_they_are_close_to_those_that_are_estimated_anew():
    data = batches(102)
    held_out = np.concatenate([x for x, _ in data[100:]])
    average = StatisticsAverage()
    model = train(Training(ema_decay=0.98, warmup_epochs=0), data[:100], [average], base_filters=4)
    with averaged_weights(model):
        last = keras.ops.convert_to_numpy(model(held_out))
    with averaged_weights(model, average):
        averaged = keras.ops.convert_to_numpy(model(held_out))
        recalibrate(model, [(x,) for x, _ in data[:100]])
        anew = keras.ops.convert_to_numpy(model(held_out))
    errors = [float(np.sqrt(np.mean((logits - anew) ** 2)) / anew.std()) for logits in (last, averaged)]
    assert errors[1] < 0.1 < 0.15 < errors[0]


def test_a_training_that_goes_on_within_an_epoch_has_the_same_average(tmp_path):
    config, data = Training(ema_decay=0.8, ema_warmup=True, warmup_epochs=0, epochs=1), batches(9)
    keep = [LastCheckpoint("ema", SegmentationCounts(), tmp_path, config) for _ in range(2)]
    whole = train(config, data, [keep[0].statistics], base_filters=2)
    half = train(config, data[:4], [keep[1].statistics], base_filters=2)
    state, arrays = json.loads(json.dumps(keep[1].state())), keep[1].arrays()
    again = LastCheckpoint("ema", SegmentationCounts(), tmp_path, config)
    again.restore(state, arrays)
    again.statistics.set_model(half)
    half.fit(dataset(data[4:]), epochs=1, steps_per_epoch=5, verbose=0, shuffle=False, callbacks=[again.statistics])
    assert np.array_equal(again.arrays()["ema_statistics"], keep[0].arrays()["ema_statistics"])
    assert all(map(np.array_equal, values(whole.variables), values(half.variables)))
    with averaged_weights(whole, keep[0].statistics):
        keep[0].set_model(whole)
        expected = values(whole.variables)
    keep[0].on_epoch_end(0, {"loss": 0.1})
    saved = build_model("unet", bands=2, depth=1, base_filters=2)
    saved.load_weights(tmp_path / keep[0].best["file"])
    assert all(map(np.array_equal, values(saved.variables), expected))


@pytest.mark.slow
def test_all_of_it_under_jax():
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        __file__,
        "-m",
        "slow or not slow",
        "-k",
        "not jax",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0 and "6 passed" in done.stdout, done.stdout[-3000:]
