"""U-Net: parameter counts by formula, values by NumPy, normalisation and dropout.

What holds for every network is tested in test_every_network.py.
"""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.weights import parameters as number_of
from helpers.weights import scramble

from marsls_keras.models import build_model
from marsls_keras.models.unet import unet

TINY = {"base_filters": 2, "depth": 2}


def images(bands: int = 7, size: tuple[int, int] = (16, 16), number: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (number, *size, bands)).astype(np.float32)


def parameters(bands: int, filters: int, depth: int) -> tuple[int, int]:
    """Count all and trainable parameters, block by block from the definition."""

    def block(
        inner, outer
    ):  # two 3x3 convolutions without bias, each with scale and offset (and two moving statistics)
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
    assert number_of(model.trainable_variables) == trainable


def test_the_docstring_tells_the_true_number_of_parameters():
    told = [int(number.replace(",", "")) for number in re.findall(r"\d{1,3}(?:,\d{3})+", unet.__doc__)]
    assert told == list(parameters(7, 16, 4)) == [1_946_097, 1_943_153]


def test_the_output_equals_numpy():
    model = scramble(build_model("unet", bands=2, base_filters=2, depth=1))
    weights = {v.path: keras.ops.convert_to_numpy(v).astype(np.float64) for v in model.weights}
    x = images(2, (6, 4), 1)[0].astype(np.float64)

    def convolve(a, kernel):  # 3x3, zeros beyond the border
        padded, (height, width) = np.pad(a, ((1, 1), (1, 1), (0, 0))), a.shape[:2]
        return sum(padded[i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))

    def block(a, name):
        for i in (1, 2):
            a = convolve(a, weights[f"{name}_conv{i}/kernel"])
            gamma, beta, mean, variance = (
                weights[f"{name}_bn{i}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
            )
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


def test_three_bands():
    model = build_model("unet", bands=3, **TINY)
    assert model.input_shape == (None, None, None, 3) and model(images(3)).shape == (2, 16, 16, 1)


def test_batch_normalisation_makes_training_differ():
    model = scramble(build_model("unet", **TINY))
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
    assert model.non_trainable_variables[position].numpy() == pytest.approx(
        0.9 * moving[position] + 0.1 * mean, rel=1e-4, abs=1e-5
    )


def test_dropout_acts_in_training_only():
    keras.utils.set_random_seed(0)
    plain, dropping = build_model("unet", **TINY), build_model("unet", dropout=0.5, **TINY)
    weights = scramble(plain).get_weights()
    dropping.set_weights(
        weights + dropping.get_weights()[len(weights) :]
    )  # after the weights: the state of the random numbers
    x = images()
    assert np.array_equal(dropping(x, training=False), plain(x, training=False))
    assert np.array_equal(plain(x, training=True), plain(x, training=True))
    assert not np.array_equal(dropping(x, training=True), dropping(x, training=True))


@pytest.mark.parametrize(
    "options",
    [{"bands": 0}, {"base_filters": 0}, {"depth": 0}, {"dropout": 1.0}, {"dropout": -0.5}, {"dropout": float("nan")}],
)
def test_arguments_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=r"dropout in \[0, 1\)\. Received: .*" + "=".join(map(str, *options.items()))):
        unet(**options)
