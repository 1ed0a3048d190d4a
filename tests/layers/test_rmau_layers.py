"""The layers of RMAU-Net: values against NumPy, configuration, sizes, precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from marsls_keras.layers import CBAM, ChannelMean, DimensionAttention, MeanProbability, ResConv, SqueezeExcitation
from marsls_keras.layers.resize import interpolation


@pytest.fixture
def policy():
    """Sets a precision for one test."""
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def inputs(height=4, width=8, channels=6):
    return np.random.default_rng(0).normal(size=(2, height, width, channels)).astype(np.float32)


def scrambled(layer, channels=6, seed=1):
    """Return a built layer whose variables all have different values."""
    if not layer.built:
        layer.build((None, None, None, channels))
    rng = np.random.default_rng(seed)
    for variable in layer.weights:
        low, high = (0.5, 1.5) if "variance" in variable.name else (-0.5, 0.5)
        variable.assign(rng.uniform(low, high, variable.shape))
    return layer


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def weights(layer):
    """Return the values of a layer's variables by the ends of their paths."""
    return {"/".join(v.path.split("/")[1:]): v.numpy() for v in layer.weights}


def test_res_conv_by_hand():
    layer, x = scrambled(ResConv(5, slope=0.3)), inputs()
    w = weights(layer)

    def convolve(x, name):
        return tf.nn.conv2d(x, w[f"{name}/kernel"], 1, "SAME").numpy() + w[f"{name}/bias"]

    def normal(x, name, own):
        mean, variance = (
            (x.mean((0, 1, 2)), x.var((0, 1, 2))) if own else (w[f"{name}/moving_mean"], w[f"{name}/moving_variance"])
        )
        return w[f"{name}/gamma"] * (x - mean) / np.sqrt(variance + 1e-3) + w[f"{name}/beta"]

    def leaky(x):
        return np.where(x > 0, x, 0.3 * x)

    for own in (False, True):
        branches = [leaky(normal(convolve(x, f"conv{k}"), f"bn{k}", own)) for k in (1, 3, 5)]
        merged = leaky(normal(convolve(np.concatenate(branches, -1), "merge"), "merge_bn", own))
        expected = leaky(merged + normal(convolve(x, "shortcut"), "shortcut_bn", own))
        assert layer(x, training=own).numpy() == pytest.approx(expected, abs=1e-4)
    assert np.abs(layer(x).numpy() - expected).max() > 0.05  # the moving statistics have moved
    assert layer.count_params() == 36 * 6 * 5 + 3 * 25 + 25 * 5


def attend(w, name, x, key_dim):
    """Return multi-head self-attention of tokens (B, T, F), with the weights of one of the layer's three."""
    q, k, v = (
        np.einsum("btf,fnd->bntd", x, w[f"{name}/{part}/kernel"]) + w[f"{name}/{part}/bias"][:, None]
        for part in ("query", "key", "value")
    )
    scores = np.einsum("bntd,bnsd->bnts", q, k) / np.sqrt(key_dim)
    shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    joined = np.einsum("bnts,bnsd->btnd", shares, v)
    return np.einsum("btnd,ndf->btf", joined, w[f"{name}/attention_output/kernel"]) + w[f"{name}/attention_output/bias"]


@pytest.mark.parametrize("width", [8, 5])
def test_dimension_attention_by_hand(width):
    layer, x = scrambled(DimensionAttention(8, heads=2, key_dim=3)), inputs(width=width)
    w = weights(layer)
    there, back = np.array(interpolation(width, 8)).T, np.array(interpolation(8, width)).T
    over_height, over_width = (
        sigmoid(sum(attend(w, name, pool(x, axis=axis), 3) for pool in (np.mean, np.max)))
        for name, axis in (("over_height", 1), ("over_width", 2))
    )
    over_channels = sigmoid(
        sum(attend(w, "over_channels", pool(x, axis=3) @ there, 3) for pool in (np.mean, np.max)) @ back
    )
    assert over_height.shape == (2, width, 6) and over_width.shape == (2, 4, 6) and over_channels.shape == (2, 4, width)
    expected = (x * over_height[:, None] + x * over_width[:, :, None] + x * over_channels[..., None]) / 3
    assert layer(x).numpy() == pytest.approx(expected, abs=1e-5)


def test_dimension_attention_has_the_parameters_of_its_formula():
    layer = scrambled(DimensionAttention(32), channels=24)
    assert layer.count_params() == 514 * 24 + 257 * 32 + 576


def test_squeeze_excitation_and_cbam_by_hand():
    x = inputs()

    def score(w, pooled):
        return np.maximum(pooled @ w["squeeze/kernel"] + w["squeeze/bias"], 0) @ w["excite/kernel"] + w["excite/bias"]

    layer = scrambled(SqueezeExcitation(2))
    weighted = x * sigmoid(score(weights(layer), x.mean((1, 2))))[:, None, None]
    assert layer(x).numpy() == pytest.approx(weighted, abs=1e-5)
    layer = scrambled(CBAM(3, kernel_size=5))
    w = weights(layer)
    maps = x * sigmoid(score(w, x.mean((1, 2))) + score(w, x.max((1, 2))))[:, None, None]
    pooled = np.stack([maps.mean(-1), maps.max(-1)], -1)
    expected = maps * sigmoid(tf.nn.conv2d(pooled, w["spatial/kernel"], 1, "SAME").numpy())
    assert layer(x).numpy() == pytest.approx(expected, abs=1e-5)


def test_a_reduction_beyond_the_channels_leaves_one():
    assert scrambled(SqueezeExcitation(16)).squeeze.units == 1


def test_the_channel_mean_is_taken_in_float32(policy):
    policy("mixed_bfloat16")
    x = inputs()
    logits = ChannelMean(dtype="float32")(x)
    assert logits.dtype == "float32" and logits.numpy() == pytest.approx(x.mean(-1, keepdims=True), abs=1e-6)


def test_the_mean_of_probabilities_is_that_of_the_resized_masks():
    rng = np.random.default_rng(0)
    masks = [rng.normal(0, 3, (2, *size, 1)).astype(np.float32) for size in ((2, 4), (4, 8), (8, 16))]
    probability = np.mean([tf.image.resize(sigmoid(z.astype(np.float64)), (4, 8)).numpy() for z in masks], axis=0)
    logits = MeanProbability(dtype="float32")(masks, inputs())
    assert logits.shape == (2, 4, 8, 1) and sigmoid(logits.numpy()) == pytest.approx(probability, abs=1e-6)


@pytest.mark.parametrize("logit", [-60.0, -20.0, 0.0, 20.0, 60.0])
def test_the_mean_of_equal_masks_is_that_mask_also_near_0_and_1(logit):
    masks = [np.full((1, size, size, 1), logit, np.float32) for size in (2, 4, 8)]
    assert MeanProbability(dtype="float32")(masks, np.zeros((1, 4, 4, 3))).numpy() == pytest.approx(
        np.full((1, 4, 4, 1), logit), rel=1e-5
    )


def test_logits_beyond_float32_stay_finite():
    masks = [np.full((1, 4, 4, 1), value, np.float32) for value in (-1e9, np.inf)]
    found = [MeanProbability(dtype="float32")([mask], np.zeros((1, 4, 4, 3))).numpy().max() for mask in masks]
    assert found == pytest.approx([-80, 80], rel=1e-5)


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: ResConv(0), "filters=0, slope=0.3"),
        (lambda: ResConv(4, slope=-1), "filters=4, slope=-1"),
        (lambda: DimensionAttention(0), "width=0, heads=4, key_dim=16"),
        (lambda: DimensionAttention(8, heads=0), "width=8, heads=0, key_dim=16"),
        (lambda: SqueezeExcitation(0), "SqueezeExcitation needs a reduction of at least 1. Received: 0"),
        (lambda: CBAM(kernel_size=0), "kernel_size of at least 1. Received: 0"),
    ],
)
def test_arguments_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
