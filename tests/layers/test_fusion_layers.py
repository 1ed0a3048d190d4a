"""The layers of fusions and decoders against NumPy, SciPy and TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit, softmax

from marsls_keras.layers import AdaptivePooling, Blend, EfficientChannelAttention, Gate, ResizeLike


def maps(number=2, size=(4, 5), channels=6, seed=0):
    return [
        np.random.default_rng(seed + i).normal(0, 1, (2, *size, channels)).astype(np.float32) for i in range(number)
    ]


@pytest.mark.parametrize("number", [2, 3])
def test_blend_is_a_mean_with_learned_weights_that_begin_equal(number):
    x, layer = maps(number), Blend()
    assert layer(x).numpy() == pytest.approx(np.mean(x, axis=0), abs=1e-6)
    alpha = np.arange(1, number) * 0.7
    layer.alpha.assign(alpha)
    expected = np.tensordot(softmax([*alpha, 0]), x, 1)
    assert layer(x).numpy() == pytest.approx(expected, abs=1e-6)
    if number == 2:
        assert expected == pytest.approx(expit(0.7) * x[0] + (1 - expit(0.7)) * x[1], abs=1e-6)


@pytest.mark.parametrize("number", [2, 3])
def test_gate_weights_each_pixel_and_channel(number):
    x, layer = maps(number), Gate()
    layer(x)
    together = np.concatenate(x, -1)
    scores = together @ layer.conv.kernel.numpy()[0, 0] + layer.conv.bias.numpy()
    weights = softmax(scores.reshape(2, 4, 5, number, 6), axis=3)
    expected = sum(weights[:, :, :, i] * x[i] for i in range(number))
    assert layer(x).numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("channels,kernel", [(64, 3), (96, 3), (128, 5), (256, 5), (512, 5), (1536, 5), (2, 1)])
def test_eca_has_the_papers_kernel(channels, kernel):
    # |t|_odd of (log2 C + 1) / 2: int(t) if that is odd, else the odd number above it, as in the authors' code.
    t = int(abs((np.log2(channels) + 1) / 2))
    assert kernel == (t if t % 2 else t + 1)
    layer = EfficientChannelAttention()
    layer.build((None, 4, 4, channels))
    assert layer.count_params() == kernel


def test_eca_equals_numpy():
    (x,), layer = maps(1), EfficientChannelAttention(3)
    layer(x)
    kernel = layer.conv.kernel.numpy()[:, 0, 0]
    mean = np.pad(x.mean((1, 2)), ((0, 0), (1, 1)))
    scores = sum(kernel[i] * mean[:, i : i + 6] for i in range(3))
    assert layer(x).numpy() == pytest.approx(x * expit(scores)[:, None, None], abs=1e-5)


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(4, 4), (7, 5), (2, 12)])
def test_adaptive_pooling_takes_means_of_parts(bins, size):
    (x,) = maps(1, size)

    def part(i, n):
        return slice(i * n // bins, int(np.ceil((i + 1) * n / bins)))

    expected = [[x[:, part(i, size[0]), part(j, size[1])].mean((1, 2)) for j in range(bins)] for i in range(bins)]
    assert AdaptivePooling(bins)(x).numpy() == pytest.approx(np.transpose(expected, (2, 0, 1, 3)), abs=1e-5)


@pytest.mark.parametrize(
    "source,target", [((4, 5), (8, 10)), ((1, 3), (4, 12)), ((6, 4), (3, 2)), ((4, 4), (4, 4)), ((5, 7), (13, 9))]
)
def test_resize_like_is_bilinear(source, target):
    (x,), reference = maps(1, source), np.zeros((2, *target, 3), np.float32)
    expected = tf.image.resize(x, target, "bilinear").numpy()
    assert ResizeLike()(x, reference).numpy() == pytest.approx(expected, abs=1e-5)
    unknown = [tf.TensorSpec((None, None, None, channels)) for channels in (6, 3)]
    assert tf.function(lambda *a: ResizeLike()(*a), input_signature=unknown)(x, reference).numpy() == pytest.approx(
        expected, abs=1e-5
    )


@pytest.mark.parametrize("make", [lambda: EfficientChannelAttention(0), lambda: AdaptivePooling(0)])
def test_arguments_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="Received: 0"):
        make()
