"""SwinV2's layers against NumPy attention over all tokens, in which pairs of different windows are masked."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import erf

from marsls_keras.layers import DropPath, SwinV2Block, WindowAttention


def images(size=(6, 9), channels=8, number=2, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (number, *size, channels)).astype(np.float32)


def scrambled(layer, shape, seed=1):
    layer.build(shape)
    rng = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape) + ("gamma" in variable.name))
    return layer


def attention(x, w, heads, window, shift):
    """Compute attention over all tokens of one image (H, W, C) in float64, token by token, window by window."""
    height, width, channels = x.shape
    sides = [min(n, window) for n in (height, width)]
    shifts = [0 if n <= window else shift for n in (height, width)]
    tokens = x.reshape(-1, channels)
    bias = np.concatenate([w["q_bias"], np.zeros(channels), w["v_bias"]])
    q, k, v = np.split((tokens @ w["qkv/kernel"] + bias).reshape(-1, 3, heads, channels // heads), 3, axis=1)
    places = [(y, z) for y in range(height) for z in range(width)]

    def window_of(place):  # and whether the roll brought it there from the other border, by axis
        rolled = [(p - s) % n for p, s, n in zip(place, shifts, (height, width), strict=True)]
        return [(r // side, p < s) for r, side, p, s in zip(rolled, sides, place, shifts, strict=True)]

    def spaced(difference, side):
        value = 8 * difference / max(side - 1, 1)
        return np.sign(value) * np.log2(1 + abs(value)) / 3

    out = np.zeros((len(places), heads, channels // heads))
    for i, a in enumerate(places):
        seen = [j for j, b in enumerate(places) if window_of(a) == window_of(b)]
        delta = np.array([[spaced(a[n] - places[j][n], sides[n]) for n in (0, 1)] for j in seen])
        hidden = np.maximum(delta @ w["cpb_mlp_0/kernel"] + w["cpb_mlp_0/bias"], 0)
        position = 16 / (1 + np.exp(-hidden @ w["cpb_mlp_2/kernel"]))
        for h in range(heads):
            one, others = q[i, 0, h], k[seen, 0, h]
            cosine = others @ one / np.linalg.norm(one) / np.linalg.norm(others, axis=1)
            score = np.exp(min(w["logit_scale"][h, 0, 0], np.log(100))) * cosine + position[:, h]
            weight = np.exp(score - score.max())
            out[i, h] = weight / weight.sum() @ v[seen, 0, h]
    return (out.reshape(-1, channels) @ w["proj/kernel"] + w["proj/bias"]).reshape(x.shape)


def weights(layer):
    return {v.path.split("/", 1)[1] if "/" in v.path else v.path: v.numpy().astype(np.float64) for v in layer.weights}


GRIDS = [((8, 8), 4, 2), ((8, 4), 4, 0), ((4, 8), 4, 2), ((6, 9), 4, 2), ((5, 3), 2, 1), ((1, 7), 3, 1), ((3, 3), 8, 4)]


@pytest.mark.parametrize("size,window,shift", GRIDS)
def test_attention_equals_that_over_all_tokens_with_the_other_windows_closed(size, window, shift):
    x = images(size)
    layer = scrambled(WindowAttention(2, window, shift), x.shape)
    layer.logit_scale.assign(np.reshape([1.5, 7.0], (2, 1, 1)))  # the second is clipped
    w = weights(layer)
    expected = np.stack([attention(image.astype(np.float64), w, 2, window, shift) for image in x])
    assert layer(x).numpy() == pytest.approx(expected, abs=2e-4, rel=2e-4) and expected.std() > 0.1
    unknown = tf.function(lambda x: layer(x), input_signature=[tf.TensorSpec((None, None, None, 8))])
    assert unknown(x).numpy() == pytest.approx(expected, abs=2e-4, rel=2e-4)


def test_a_block_adds_normalised_branches():
    x = images((4, 4), 4, 1)
    layer = scrambled(SwinV2Block(2, 4, mlp_ratio=3), x.shape)
    w = weights(layer)

    def normal(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-5) * w[f"{name}/gamma"] + w[f"{name}/beta"]

    inner = {name.removeprefix("attention/"): value for name, value in w.items() if name.startswith("attention/")}
    first = x[0] + normal(attention(x[0].astype(np.float64), inner, 2, 4, 0), "norm1")
    hidden = first @ w["fc1/kernel"] + w["fc1/bias"]
    hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
    expected = first + normal(hidden @ w["fc2/kernel"] + w["fc2/bias"], "norm2")
    assert w["fc1/kernel"].shape == (4, 12)
    assert layer(x).numpy()[0] == pytest.approx(expected, abs=2e-4, rel=2e-4)


def test_what_must_not_decay_is_found_by_its_name():
    from marsls_keras.training.optimizer import _may_decay

    layer = SwinV2Block(2, 4)
    layer.build((None, 4, 4, 8))
    decaying = {
        v.path.removeprefix("swin_v2_block").split("/", 1)[1] for v in layer.trainable_variables if _may_decay(v)
    }
    assert decaying == {"attention/qkv/kernel", "attention/proj/kernel", "fc1/kernel", "fc2/kernel"}


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    x = np.ones((4000, 1, 1, 2), np.float32)
    layer = DropPath(0.25, seed=3)
    assert np.array_equal(layer(x), x) and np.array_equal(layer(x, training=False), x)
    one, two = np.array(layer(x, training=True)), np.array(layer(x, training=True))
    assert set(np.unique(one)) == {0, np.float32(1 / 0.75)} and np.array_equal(one[..., 0], one[..., 1])
    assert one.mean() == pytest.approx(1, abs=0.03) and not np.array_equal(one, two)
    assert np.array_equal(DropPath(0.25, seed=3)(x, training=True), one)
    assert np.array_equal(DropPath(0.0)(x, training=True), x) and not DropPath(0.0).variables


@pytest.mark.parametrize(
    "make,said",
    [
        (lambda: WindowAttention(0), "heads=0"),
        (lambda: WindowAttention(2, 4, 4), "shift=4"),
        (lambda: WindowAttention(2, 0), "window=0"),
        (lambda: SwinV2Block(2, mlp_ratio=0), "Received: 0"),
        (lambda: DropPath(1.0), "Received: 1.0"),
        (lambda: WindowAttention(3).build((None, 4, 4, 8)), "divisible by 3 heads. Received: 8"),
    ],
)
def test_arguments_out_of_range_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
