"""The U-Net: parameter counts by formula, values by NumPy, gradients, and what every network here must do."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from marsls_keras.losses import build_loss
from marsls_keras.models import build_model
from marsls_keras.models.unet import unet

TINY = {"base_filters": 2, "depth": 2}


@pytest.fixture
def policy():
    """Sets a precision for one test."""
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def images(bands: int = 7, size: tuple[int, int] = (16, 16), number: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (number, *size, bands)).astype(np.float32)


def scrambled(model: keras.Model, seed: int = 1) -> keras.Model:
    """Give every weight, also offsets and moving statistics, a random positive or negative value; variances stay positive."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        value = rng.normal(0, 0.5, variable.shape)
        variable.assign(np.abs(value) + 0.5 if "variance" in variable.name else value)
    return model


def parameters(bands: int, filters: int, depth: int) -> tuple[int, int]:
    """Total and trainable parameters, block by block from the definition."""

    def block(inner, outer):  # two 3x3 convolutions without bias, each with scale and offset (and two moving statistics)
        return 9 * inner * outer + 9 * outer * outer + 4 * outer

    channels = [filters * 2**level for level in range(depth + 1)]
    encoder = sum(block(inner, outer) for inner, outer in zip([bands, *channels], channels, strict=False))
    up = sum(4 * channels[level + 1] * channels[level] + channels[level] for level in range(depth))
    decoder = sum(block(2 * channels[level], channels[level]) for level in range(depth))
    statistics = 4 * (sum(channels) + sum(channels[:-1]))
    trainable = encoder + up + decoder + filters + 1
    return trainable + statistics, trainable


@pytest.mark.parametrize("bands,filters,depth", [(7, 16, 4), (3, 16, 4), (7, 32, 4), (1, 1, 1), (5, 3, 2), (7, 2, 5)])
def test_parameters_equal_the_formula(bands, filters, depth):
    model = build_model("unet", bands=bands, base_filters=filters, depth=depth)
    total, trainable = parameters(bands, filters, depth)
    assert model.count_params() == total
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == trainable


def test_the_docstring_tells_the_true_number_of_parameters():
    told = [int(number.replace(",", "")) for number in re.findall(r"\d{1,3}(?:,\d{3})+", unet.__doc__)]
    assert told == list(parameters(7, 16, 4)) == [1_946_097, 1_943_153]


def test_the_output_equals_numpy():
    model = scrambled(build_model("unet", bands=2, base_filters=2, depth=1))
    weights = {v.path: keras.ops.convert_to_numpy(v).astype(np.float64) for v in model.weights}
    x = images(2, (6, 4), 1)[0].astype(np.float64)

    def convolve(a, kernel):  # 3x3, zeros beyond the border
        padded, (height, width) = np.pad(a, ((1, 1), (1, 1), (0, 0))), a.shape[:2]
        return sum(padded[i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))

    def block(a, name):
        for i in (1, 2):
            a = convolve(a, weights[f"{name}_conv{i}/kernel"])
            gamma, beta, mean, variance = (weights[f"{name}_bn{i}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance"))
            a = np.maximum(gamma * (a - mean) / np.sqrt(variance + 1e-3) + beta, 0)
        return a

    skip = block(x, "down0")
    pooled = skip.reshape(3, 2, 2, 2, -1).max((1, 3))
    bottom = block(pooled, "bottom")
    # Kernel (2, 2, out, in): pixel (2 r + i, 2 c + j) of the output sees pixel (r, c) alone.
    up = np.einsum("rcf,ijgf->ricjg", bottom, weights["up0/kernel"]).reshape(6, 4, -1) + weights["up0/bias"]
    decoded = block(np.concatenate([skip, up], -1), "decode0")
    logits = decoded @ weights["logits/kernel"][0, 0] + weights["logits/bias"]
    assert np.std(logits) > 0.01
    assert model(x[None].astype(np.float32)).numpy()[0] == pytest.approx(logits, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (4, 4), (48, 80), (20, 12)])
def test_any_size_divisible_by_the_stride_works(size):
    model = build_model("unet", **TINY)
    assert model.output_shape == (None, None, None, 1)
    assert model(images(size=size)).shape == (2, *size, 1)


def test_three_bands():
    model = build_model("unet", bands=3, **TINY)
    assert model.input_shape == (None, None, None, 3) and model(images(3)).shape == (2, 16, 16, 1)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.3}])
def test_a_gradient_reaches_every_trainable_variable(options):
    keras.utils.set_random_seed(0)
    model = build_model("unet", base_filters=4, depth=2, **options)
    truth = np.random.default_rng(2).integers(0, 2, (4, 16, 16, 1))
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        loss = build_loss({"bce": 1, "dice": 1})(truth, model(images(number=4), training=True))
    for variable, gradient in zip(variables, tape.gradient(loss, [v.value for v in variables]), strict=True):
        assert gradient is not None and np.isfinite(gradient).all() and np.abs(gradient).max() > 1e-7, variable.path


def test_saved_weights_come_back(tmp_path):
    model, other = scrambled(build_model("unet", **TINY), 1), scrambled(build_model("unet", **TINY), 2)
    assert not np.allclose(model(images()), other(images()))
    model.save_weights(tmp_path / "a.weights.h5")
    other.load_weights(tmp_path / "a.weights.h5")
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), other.get_weights(), strict=True))
    assert np.array_equal(model(images()), other(images()))


def test_round_trip_through_the_configuration():
    model = scrambled(build_model("unet", bands=5, base_filters=3, depth=3, dropout=0.4))
    again = keras.Model.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert [(v.path, v.shape) for v in again.weights] == [(v.path, v.shape) for v in model.weights]
    assert next(layer.rate for layer in again.layers if isinstance(layer, keras.layers.Dropout)) == 0.4
    again.set_weights(model.get_weights())
    assert np.array_equal(again(images(5)), model(images(5)))


def test_training_on_one_batch_lowers_the_loss():
    keras.utils.set_random_seed(0)
    model = build_model("unet", base_filters=4, depth=2)
    x = images(number=4)
    truth = (x[..., :1] > 0).astype(np.float32)
    model.compile(optimizer=keras.optimizers.Adam(0.02), loss=build_loss({"bce": 0.5, "dice": 0.5}), jit_compile=False)
    losses = [float(model.train_on_batch(x, truth)) for _ in range(20)]
    assert losses[-1] < 0.6 * losses[0]


def test_batch_normalisation_makes_training_differ():
    model = scrambled(build_model("unet", **TINY))
    x = images()
    moving = [v.numpy() for v in model.non_trainable_variables]
    inference = model(x, training=False).numpy()
    assert all(np.array_equal(a, v) for a, v in zip(moving, model.non_trainable_variables, strict=True))
    assert np.array_equal(inference, model(x))
    training = model(x, training=True).numpy()
    assert np.abs(training - inference).max() > 0.01
    # Momentum 0.9: a tenth of the way from the old moving statistics to the batch's.
    kernel = model.get_layer("down0_conv1").kernel.numpy()
    mean = tf.nn.conv2d(x, kernel, 1, "SAME").numpy().mean((0, 1, 2))
    position = [v.path for v in model.non_trainable_variables].index("down0_bn1/moving_mean")
    assert model.non_trainable_variables[position].numpy() == pytest.approx(0.9 * moving[position] + 0.1 * mean, rel=1e-4, abs=1e-5)


def test_dropout_acts_in_training_only():
    keras.utils.set_random_seed(0)
    plain, dropping = build_model("unet", **TINY), build_model("unet", dropout=0.5, **TINY)
    weights = scrambled(plain).get_weights()
    dropping.set_weights(weights + dropping.get_weights()[len(weights) :])  # after the weights: the state of the random numbers
    x = images()
    assert np.array_equal(dropping(x, training=False), plain(x, training=False))
    assert np.array_equal(plain(x, training=True), plain(x, training=True))
    assert not np.array_equal(dropping(x, training=True), dropping(x, training=True))


def test_symbolic_eager_and_compiled_calls_agree():
    model = scrambled(build_model("unet", **TINY))
    model.compile(jit_compile=False)
    x = images()
    eager = model(x).numpy()
    symbolic = keras.Input((16, 16, 7))
    output = model(symbolic)
    assert output.shape == (None, 16, 16, 1) and output.dtype == "float32"
    for other in (keras.Model(symbolic, output)(x), tf.function(model)(x), model.predict(x, verbose=0)):
        assert np.array(other) == pytest.approx(eager, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_logits_are_float32_under_mixed_precision(policy, name):
    exact = scrambled(build_model("unet", **TINY))
    policy(name)
    model = build_model("unet", **TINY)
    model.set_weights(exact.get_weights())
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert model.get_layer("down0_conv1").compute_dtype == name.removeprefix("mixed_")
    logits, expected = model(images()), exact(images()).numpy()
    assert logits.dtype == tf.float32 and model.output.dtype == "float32"
    # Not rounded to half precision on the way out, and near the exact ones.
    assert not np.array_equal(logits, tf.cast(tf.cast(logits, name.removeprefix("mixed_")), "float32"))
    error = np.abs(logits.numpy() - expected).max()
    assert 0 < error < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(
    "options", [{"bands": 0}, {"base_filters": 0}, {"depth": 0}, {"dropout": 1.0}, {"dropout": -0.5}, {"dropout": float("nan")}]
)
def test_arguments_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=r"dropout in \[0, 1\)\. Received: .*" + "=".join(map(str, *options.items()))):
        unet(**options)
