"""Resizing against TensorFlow's own, at sizes known and unknown."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from marsls_keras.layers import UpsampleBilinear
from marsls_keras.layers.resize import area, bilinear, interpolation

SIZES = [((4, 6), (8, 12)), ((8, 12), (4, 6)), ((5, 7), (5, 7)), ((3, 8), (10, 5))]


@pytest.mark.parametrize("source,target", SIZES)
def test_both_resize_as_tensorflow_does(source, target):
    maps = np.random.default_rng(0).normal(size=(2, *source, 1)).astype(np.float32)
    for ours, method in ((lambda x, *size: bilinear(x[..., 0], *size)[..., None], "bilinear"), (area, "area")):
        expected = tf.image.resize(maps, target, method).numpy()
        assert ours(tf.constant(maps), *target).numpy() == pytest.approx(expected, abs=1e-5)
        dynamic = tf.function(
            ours, input_signature=[tf.TensorSpec((None, None, None, 1)), *[tf.TensorSpec((), tf.int32)] * 2]
        )
        assert dynamic(maps, *map(tf.constant, target)).numpy() == pytest.approx(expected, abs=1e-5)


def test_an_axis_of_equal_length_stays_as_it_is_and_weights_add_up_to_one():
    assert np.array_equal(interpolation(7, 7), np.eye(7))
    assert np.array_equal(interpolation(2, 4), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    assert interpolation(13, 5).numpy().sum(1) == pytest.approx(np.ones(5), abs=1e-6)


@pytest.mark.parametrize("source,target", [(2, 3), (4, 32), (1, 8), (6, 1), (5, 5)])
def test_with_aligned_corners_it_is_numpys_interpolation_between_equal_ends(source, target):
    values = np.random.default_rng(0).normal(size=source).astype(np.float32)
    expected = np.interp(np.linspace(0, source - 1, target), np.arange(source), values)
    assert interpolation(source, target, align_corners=True).numpy() @ values == pytest.approx(expected, abs=1e-5)


def test_half_the_size_is_the_mean_of_two_by_two_and_twice_the_size_repeats():
    masks = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    assert area(masks, 2, 2).numpy()[0, ..., 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert np.array_equal(area(masks, 8, 8), masks.repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (16, 24)])
def test_doubling_is_what_keras_does_where_sizes_are_known(size):
    maps = np.random.default_rng(0).normal(size=(2, *size, 5)).astype(np.float32)
    expected = keras.layers.UpSampling2D(2, interpolation="bilinear")(maps).numpy()
    layer = UpsampleBilinear()
    assert layer(maps).numpy() == pytest.approx(expected, abs=1e-6)
    dynamic = tf.function(lambda x: layer(x), input_signature=[tf.TensorSpec((None, None, None, 5))])
    assert dynamic(maps).numpy() == pytest.approx(expected, abs=1e-6)
