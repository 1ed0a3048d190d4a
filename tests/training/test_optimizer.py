"""The optimiser, compared with an implementation in NumPy.

Steps, weight decay, encoder levels, clipping, accumulation, moving average, precision and several devices.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from marsls_keras.config import Training
from marsls_keras.errors import InputError
from marsls_keras.models import build_model, encoder_levels
from marsls_keras.training.optimizer import build_optimizer

CONSTANT = {"warmup_epochs": 0, "schedule": {"name": "constant"}}


def by_hand(starts, gradients, rates, decay=0.0, scales=None, clip=None, momentum=None):
    """Compute AdamW in float64: the weights after each update, and the moving average after the last.

    Args:
        starts: Initial values of the variables.
        gradients: For each update, one gradient per variable.
        rates: Learning rate of each update.
        decay: Weight decay.
        scales: Factor of the learning rate of each variable.
        clip: Largest norm of all gradients of an update together.
        momentum: Decay of the moving average, by the number of the update from 0.
    """
    scales = scales or [1.0] * len(starts)
    weights = [np.asarray(start, np.float64) for start in starts]
    m, v = [0.0] * len(starts), [0.0] * len(starts)
    average, history = None, []
    for t, (update, rate) in enumerate(zip(gradients, rates, strict=True)):
        norm = math.sqrt(sum((np.asarray(g, np.float64) ** 2).sum() for g in update))
        shrink = 1.0 if clip is None or norm <= clip else clip / norm
        for i, (g, scale) in enumerate(zip(update, scales, strict=True)):
            g = np.asarray(g, np.float64) * shrink
            m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g**2
            # Keras adds epsilon before the correction of v, as at the end of section 2 of Kingma & Ba.
            step = m[i] / (1 - 0.9 ** (t + 1)) * math.sqrt(1 - 0.999 ** (t + 1)) / (np.sqrt(v[i]) + 1e-7)
            weights[i] = weights[i] * (1 - rate * scale * decay) - rate * scale * step
        history.append([w.copy() for w in weights])
        if momentum:
            average = (
                weights
                if t == 0
                else [momentum(t) * a + (1 - momentum(t)) * w for a, w in zip(average, weights, strict=True)]
            )
            average = [a.copy() for a in average]
    return history, average


def variables(count=2, seed=0):
    rng = np.random.default_rng(seed)
    return [keras.Variable(rng.normal(0, 1, (3, 2)), dtype="float32", name="kernel") for _ in range(count)]


def draw(updates, count=2, scale=1.0):
    rng = np.random.default_rng(1)
    return [[rng.normal(0, scale, (3, 2)).astype(np.float32) for _ in range(count)] for _ in range(updates)]


def values(found):
    return [keras.ops.convert_to_numpy(v).copy() for v in found]


def equal(found, expected, **tolerance):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, **({"rtol": 2e-4, "atol": 1e-5} | tolerance))


# Steps


@pytest.mark.parametrize(
    "settings", [{"optimizer": "adamw", "weight_decay": 0.02}, {"optimizer": "adam", "weight_decay": 0}]
)
def test_steps_and_moving_average_equal_numpy(settings):
    kernels, gradients = variables(), draw(6)
    starts = values(kernels)
    optimizer = build_optimizer(
        Training(epochs=4, warmup_epochs=1, learning_rate=0.1, ema_decay=0.7, **settings), steps_per_epoch=2
    )
    for update in gradients:
        optimizer.apply(update, kernels)
    rates = [0.05, 0.1, *(0.05 * (1 + math.cos(math.pi * k / 6)) for k in range(4))]
    history, average = by_hand(starts, gradients, rates, settings["weight_decay"], momentum=lambda t: 0.7)
    equal(values(kernels), history[-1])
    equal(values(optimizer.averages), average)
    optimizer.finalize_variable_values(kernels)  # what `fit` calls at its end
    equal(values(kernels), history[-1])
    assert np.abs(history[-1][0] - average[0]).max() > 0.01


def test_a_factor_halves_the_steps():
    kernels = variables(1)
    start = values(kernels)[0]
    build_optimizer(Training(learning_rate=0.1, weight_decay=0, **CONSTANT), 2, factor=0.5).apply(
        draw(1, 1)[0], kernels
    )
    assert np.abs(values(kernels)[0] - start) == pytest.approx(
        np.full((3, 2), 0.05), rel=1e-4
    )  # Adam's first step is the rate


# Weight decay


@keras.saving.register_keras_serializable("tests")
class Attention(layers.Layer):
    """Layer with the variables of Swin V2's attention: a network for the position bias, and a temperature."""

    def build(self, shape):
        self.query = layers.Dense(4, name="query")
        self.cpb_mlp = layers.Dense(4, name="cpb_mlp")
        self.logit_scale = self.add_weight(shape=(4,), name="logit_scale")
        self.query.build(shape)
        self.cpb_mlp.build(shape)

    def call(self, x):
        return self.query(x) * self.logit_scale + self.cpb_mlp(x)


def shrinkage(model, config, encoder=()):
    """Return the weight decay of each variable in an update without gradient, relative to learning rate * decay."""
    for variable in model.trainable_variables:
        variable.assign(np.full(variable.shape, 2.0))
    optimizer = build_optimizer(config, 5, encoder)
    optimizer.apply([np.zeros(v.shape, np.float32) for v in model.trainable_variables], model.trainable_variables)
    factor = config.learning_rate * config.weight_decay
    return {
        v.path: float((1 - keras.ops.convert_to_numpy(v).ravel()[0] / 2) / factor) for v in model.trainable_variables
    }


def test_only_kernels_decay_and_not_those_of_cpb_mlp():
    inputs = keras.Input((8, 8, 4))
    x = layers.SeparableConv2D(4, 3, name="separable")(inputs)
    x = layers.BatchNormalization(name="batch")(x)
    x = layers.LayerNormalization(name="layer")(x)
    x = layers.Dense(4, name="alphabeta")(x)  # beta is part of the name of this layer only, not of its kernel's
    x = Attention(name="attention")(x)
    x = layers.Dense(4, name="stage0_cpb_mlp_fc1")(x)
    model = keras.Model(inputs, layers.Conv2D(1, 1, name="logits")(x))
    found = shrinkage(model, Training(learning_rate=0.1, weight_decay=0.5, **CONSTANT))
    decaying = {path for path, share in found.items() if share == pytest.approx(1, rel=1e-5)}
    assert decaying == {
        *(
            "separable/depthwise_kernel",
            "separable/pointwise_kernel",
            "alphabeta/kernel",
            "attention/query/kernel",
            "logits/kernel",
        )
    }
    assert {path for path, share in found.items() if share == 0} == {
        *(
            "separable/bias",
            "batch/gamma",
            "batch/beta",
            "layer/gamma",
            "layer/beta",
            "alphabeta/bias",
            "attention/query/bias",
        ),
        *("attention/logit_scale", "attention/cpb_mlp/kernel", "attention/cpb_mlp/bias", "logits/bias"),
        *("stage0_cpb_mlp_fc1/kernel", "stage0_cpb_mlp_fc1/bias"),
    }


# Levels of the encoder


def test_deeper_levels_of_a_unet_learn_faster_and_the_decoder_fastest():
    model = build_model("unet", base_filters=2, depth=2)
    config = Training(learning_rate=0.1, weight_decay=0.5, layer_decay=0.5, **CONSTANT)
    found = shrinkage(model, config, encoder_levels("unet", {"depth": 2}))
    expected = {
        "down0": 1 / 8,
        "down1": 1 / 4,
        "bottom": 1 / 2,
        "up1": 1,
        "decode1": 1,
        "up0": 1,
        "decode0": 1,
        "logits": 1,
    }
    assert {
        path.split("_")[0].split("/")[0]: share for path, share in found.items() if path.endswith("kernel")
    } == pytest.approx(expected, rel=1e-4)


def test_steps_with_levels_equal_numpy_and_the_longest_name_decides():
    rng = np.random.default_rng(0)
    x = inputs = keras.Input((2,))
    for name in ("stage1", "stage10", "neck", "head"):
        x = layers.Dense(2, use_bias=False, name=name)(x)
    model = keras.Model(inputs, x)
    starts = values(model.trainable_variables)
    gradients = [[rng.normal(0, 1, (2, 2)).astype(np.float32) for _ in starts] for _ in range(4)]
    config = Training(learning_rate=0.1, weight_decay=0.3, layer_decay=0.6, ema_decay=0.8, **CONSTANT)
    optimizer = build_optimizer(config, 2, ["stage1", "stage10", "neck"])
    for update in gradients:
        optimizer.apply(update, model.trainable_variables)
    history, average = by_hand(starts, gradients, [0.1] * 4, 0.3, [0.6**3, 0.6**2, 0.6, 1], momentum=lambda t: 0.8)
    equal(values(model.trainable_variables), history[-1])
    equal(values(optimizer.averages), average)


def test_levels_are_asked_for_where_there_are_none():
    with pytest.raises(InputError, match=r"training.layer_decay is 0.7, but the network has no encoder"):
        build_optimizer(Training(layer_decay=0.7), 5)


def test_a_level_without_variables_is_an_error():
    optimizer = build_optimizer(Training(layer_decay=0.7), 5, ["kernel", "stage9"])
    with pytest.raises(ValueError, match="No variable belongs to the encoder's level stage9"):
        optimizer.build(variables())


# Clipping


def test_all_gradients_together_are_clipped():
    kernels, gradients = variables(), [*draw(3, scale=0.1), *draw(3, scale=3.0)]
    starts = values(kernels)
    optimizer = build_optimizer(Training(learning_rate=0.1, weight_decay=0, clip_norm=1.5, **CONSTANT), 2)
    for update in gradients:
        optimizer.apply(update, kernels)
    norms = [math.sqrt(sum((g**2).sum() for g in update)) for update in gradients]
    assert max(norms[:3]) < 1.5 < min(norms[3:])
    equal(values(kernels), by_hand(starts, gradients, [0.1] * 6, clip=1.5)[0][-1])
    assert (
        np.abs(
            by_hand(starts, gradients, [0.1] * 6, clip=1.5)[0][-1][0] - by_hand(starts, gradients, [0.1] * 6)[0][-1][0]
        ).max()
        > 0.01
    )


# Accumulation


def test_accumulated_updates_equal_numpy_and_nothing_moves_between_them():
    kernels, micro = variables(), draw(12)
    starts = values(kernels)
    settings = {
        "epochs": 4,
        "warmup_epochs": 1,
        "learning_rate": 0.1,
        "weight_decay": 0.1,
        "clip_norm": 1.0,
        "ema_decay": 0.6,
    }
    optimizer = build_optimizer(Training(accumulate=3, **settings), steps_per_epoch=3)
    seen = []
    for batch in micro:
        optimizer.apply(batch, kernels)
        seen.append((values(kernels), values(optimizer.averages), int(optimizer.iterations)))
    gradients = [[np.mean(parts, 0) for parts in zip(*micro[i : i + 3], strict=True)] for i in range(0, 12, 3)]
    rates = [0.1, *(0.05 * (1 + math.cos(math.pi * k / 3)) for k in range(3))]
    history, average = by_hand(starts, gradients, rates, 0.1, clip=1.0, momentum=lambda t: 0.6)
    for update in range(4):
        for batch in range(3 * update, 3 * update + 3):
            done = batch == 3 * update + 2
            equal(seen[batch][0], history[update] if done else history[update - 1] if update else starts)
            assert seen[batch][2] == update + done
        for part in (0, 1):
            assert all(
                np.array_equal(a, b) for a, b in zip(seen[3 * update][part], seen[3 * update + 1][part], strict=True)
            )
    equal(seen[-1][1], average)


def test_training_in_small_batches_equals_training_in_large_ones():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (24, 4)).astype(np.float32), rng.normal(0, 1, (24, 1)).astype(np.float32)
    start = [rng.normal(0, 0.5, shape) for shape in ((4, 3), (3,), (3, 1), (1,))]

    def train(batch_size, accumulate):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="tanh"), layers.Dense(1)])
        model.set_weights(start)
        config = Training(epochs=3, warmup_epochs=1, learning_rate=0.05, clip_norm=0.5, ema_decay=0.9, ema_warmup=True)
        model.compile(build_optimizer(config, 24 // batch_size, accumulate=accumulate), "mse", jit_compile=False)
        model.optimizer.build(model.trainable_variables)
        rates = []
        note = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: rates.append(float(model.optimizer.learning_rate))
        )
        seen = []
        keep = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append(values(model.trainable_variables))
        )
        model.fit(
            tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size),
            epochs=3,
            verbose=0,
            shuffle=False,
            callbacks=[note, keep],
        )
        return rates, int(model.optimizer.iterations), [*sum(seen, []), *values(model.optimizer.averages)]

    large, small = train(8, None), train(2, 4)
    assert small[0] == large[0] == pytest.approx([0.05, 0.025, 0], abs=1e-8) and small[1] == large[1] == 9
    equal(small[2], large[2], rtol=1e-4, atol=1e-6)


def test_a_state_saved_between_two_updates_goes_on_as_if_nothing_had_been():
    config, micro = Training(accumulate=3, weight_decay=0.1, ema_decay=0.9, ema_warmup=True, **CONSTANT), draw(6)
    kernels, others = variables(), variables(seed=5)
    optimizer, other = build_optimizer(config, 3), build_optimizer(config, 3)
    for batch in micro[:4]:
        optimizer.apply(batch, kernels)
    other.build(others)
    assert sum("gradient_accumulator" in v.path for v in optimizer.variables) == 2
    for ours, theirs in zip([*kernels, *optimizer.variables], [*others, *other.variables], strict=True):
        theirs.assign(ours)
    for batch in micro[4:]:
        optimizer.apply(batch, kernels)
        other.apply(batch, others)
    for ours, theirs in zip([*kernels, *optimizer.variables], [*others, *other.variables], strict=True):
        assert np.array_equal(ours, theirs), ours.path


def test_the_last_batches_of_an_epoch_are_an_update_of_their_own():
    kernels, micro = variables(), draw(10)
    starts = values(kernels)
    config = Training(
        accumulate=3, learning_rate=0.1, weight_decay=0.1, clip_norm=1.0, ema_decay=0.6, ema_warmup=True, **CONSTANT
    )
    optimizer, seen = build_optimizer(config, steps_per_epoch=5), []
    for batch in micro:
        optimizer.apply(batch, kernels)
        seen.append(int(optimizer.iterations))
    assert seen == [0, 0, 1, 1, 2, 2, 2, 3, 3, 4]
    gradients = [
        [np.mean(parts, 0) for parts in zip(*micro[a:b], strict=True)] for a, b in ((0, 3), (3, 5), (5, 8), (8, 10))
    ]
    history, average = by_hand(
        starts, gradients, [0.1] * 4, 0.1, clip=1.0, momentum=lambda t: min(0.6, (1 + t) / (10 + t))
    )
    equal(values(kernels), history[-1])
    equal(values(optimizer.averages), average)


def test_an_epoch_of_fewer_batches_than_an_update_learns():
    kernels, micro = variables(1), draw(2, 1)
    start = values(kernels)[0]
    optimizer = build_optimizer(
        Training(accumulate=8, epochs=1, warmup_epochs=0, learning_rate=0.1, weight_decay=0), steps_per_epoch=2
    )
    for batch in micro:
        optimizer.apply(batch, kernels)
    equal(values(kernels), by_hand([start], [[(micro[0][0] + micro[1][0]) / 2]], [0.1])[0][-1])


# Moving average


def test_the_moving_average_warms_up():
    kernels, gradients = variables(), draw(30)
    starts = values(kernels)
    optimizer = build_optimizer(
        Training(learning_rate=0.1, weight_decay=0, ema_decay=0.75, ema_warmup=True, **CONSTANT), 2
    )
    for update in gradients:
        optimizer.apply(update, kernels)
    _, average = by_hand(starts, gradients, [0.1] * 30, momentum=lambda t: min(0.75, (1 + t) / (10 + t)))
    equal(values(optimizer.averages), average)
    assert (1 + 25) / (10 + 25) < 0.75 < (1 + 27) / (10 + 27)  # so both branches of the minimum count


def test_without_a_moving_average_there_are_no_variables_for_it():
    kernels = variables(1)
    optimizer = build_optimizer(Training(ema_decay=None, **CONSTANT), steps_per_epoch=2)
    for update in draw(3, 1):
        optimizer.apply(update, kernels)
    assert optimizer.averages == [] and not any("average" in v.path for v in optimizer.variables)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_what_no_gradient_reaches_is_its_own_average():
    kernels, gradients = variables(), draw(3)
    idle = values(kernels)[1]
    optimizer = build_optimizer(Training(ema_decay=0.9, **CONSTANT), 2)
    for update in gradients:
        optimizer.apply([update[0], None], kernels)
    assert np.array_equal(values(kernels)[1], idle) and np.array_equal(values(optimizer.averages)[1], idle)


# Precision


@pytest.fixture
def policy():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_rate_updates_and_average_are_right_under_every_precision(policy, precision):
    policy(precision)  # mixed_float16 wraps the optimiser for the scaling of the loss
    rng = np.random.default_rng(0)
    # Small, so that no scaled loss overflows float16, which would skip a step.
    x, y = rng.normal(0, 0.1, (16, 4, 4, 2)).astype(np.float32), rng.normal(0, 0.1, (16, 4, 4, 1)).astype(np.float32)
    convolution = layers.Conv2D(3, 3, padding="same", activation="tanh")
    model = keras.Sequential([keras.Input((4, 4, 2)), convolution, layers.Conv2D(1, 1, dtype="float32")])
    model.set_weights([rng.normal(0, 0.1, w.shape) for w in model.get_weights()])
    config = Training(epochs=3, warmup_epochs=1, learning_rate=0.1, accumulate=2, ema_decay=0.8, clip_norm=1.0)
    model.compile(build_optimizer(config, 4), "mse", jit_compile=False)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")
    model.optimizer.build(model.trainable_variables)
    seen, rates = [], []
    weights = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(values(model.trainable_variables))
    )
    rate = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: rates.append(float(model.optimizer.learning_rate))
    )
    model.fit(
        tf.data.Dataset.from_tensor_slices((x, y)).batch(4),
        epochs=3,
        verbose=0,
        shuffle=False,
        callbacks=[weights, rate],
    )
    assert rates == pytest.approx([0.1, 0.05, 0], abs=1e-7) and int(model.optimizer.iterations) == 6
    assert all(all(map(np.array_equal, before, after)) for before, after in zip(seen[1:-1:2], seen[2::2], strict=True))
    average = seen[1]
    for after in seen[3::2]:
        average = [0.8 * a + 0.2 * w for a, w in zip(average, after, strict=True)]
    found = values(getattr(model.optimizer, "inner_optimizer", model.optimizer).averages)
    assert {a.dtype for a in found} == {np.dtype("float32")}
    equal(found, average, rtol=1e-5, atol=1e-6)


def test_a_step_that_overflows_float16_changes_nothing(policy):
    policy("mixed_float16")
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile(build_optimizer(Training(ema_decay=0.8, accumulate=2, **CONSTANT), 4), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    model.set_weights([np.full((2, 1), 0.1), np.zeros(1)])
    good, bad = np.full((2, 2), 0.1, np.float32), np.full((2, 2), 6e4, np.float32)
    model.train_on_batch(good, np.zeros((2, 1)))
    before = values([*model.trainable_variables, *model.optimizer.inner_optimizer.variables])
    model.train_on_batch(bad, np.zeros((2, 1)))
    assert all(
        map(np.array_equal, values([*model.trainable_variables, *model.optimizer.inner_optimizer.variables]), before)
    )
    model.train_on_batch(good, np.zeros((2, 1)))
    assert int(model.optimizer.iterations) == 1


# Configuration, devices


def test_an_optimiser_survives_its_configuration():
    config = Training(
        accumulate=2, clip_norm=1.0, layer_decay=0.5, ema_decay=0.7, ema_warmup=True, weight_decay=0.2, warmup_epochs=1
    )
    optimizer = build_optimizer(config, 2, ["kernel"])
    again = keras.optimizers.deserialize(json.loads(json.dumps(keras.optimizers.serialize(optimizer))))
    assert type(again) is type(optimizer) and again.get_config() == optimizer.get_config()
    ours, theirs, gradients = variables(), variables(), draw(8)
    for batch in gradients:
        optimizer.apply(batch, ours)
        again.apply(batch, theirs)
    assert all(map(np.array_equal, values([*ours, *optimizer.variables]), values([*theirs, *again.variables])))


DEVICES = """
import keras, numpy as np, sys, tensorflow as tf
from marsls_keras.config import Training
from marsls_keras.training.optimizer import build_optimizer
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
rng = np.random.default_rng(0)
x, y = rng.normal(0, 1, (32, 4)).astype("float32"), rng.normal(0, 1, (32, 1)).astype("float32")
config = Training(
    epochs=3, warmup_epochs=1, learning_rate=0.05, accumulate=2, clip_norm=0.1, ema_decay=0.9, ema_warmup=True
)
found = []
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(1)])
        model.compile(build_optimizer(config, 4), "mse", jit_compile=False)
        model.optimizer.build(model.trainable_variables)
    model.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(8), epochs=3, verbose=0, shuffle=False)
    found.append([v.numpy() for v in [*model.variables, *model.optimizer.variables]])
np.savez(sys.argv[1], *found[0], *found[1])
"""


@pytest.mark.slow
def test_two_devices_give_the_weights_of_one(tmp_path):
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
    path = Path(tmp_path) / "found.npz"
    subprocess.run([sys.executable, "-c", DEVICES, path], check=True, capture_output=True, env=environment)
    with np.load(path) as found:
        arrays = [found[f"arr_{i}"] for i in range(len(found.files))]
    half = len(arrays) // 2
    assert half == 1 + 4 * 5  # iterations; weights, moments, sums of gradients and averages of four variables
    equal(arrays[:half], arrays[half:], rtol=1e-4, atol=1e-6)
