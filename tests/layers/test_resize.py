"""Resizing against TensorFlow's own, at sizes known and unknown."""

import numpy as np
import pytest
import tensorflow as tf

from marsls_keras.layers.resize import bilinear, interpolation, nearest

SIZES = [((4, 6), (8, 12)), ((8, 12), (4, 6)), ((5, 7), (5, 7)), ((3, 8), (10, 5))]


@pytest.mark.parametrize("source,target", SIZES)
def test_both_resize_as_tensorflow_does(source, target):
    maps = np.random.default_rng(0).normal(size=(2, *source, 1)).astype(np.float32)
    for ours, method in ((lambda x, *size: bilinear(x[..., 0], *size)[..., None], "bilinear"), (nearest, "nearest")):
        expected = tf.image.resize(maps, target, method).numpy()
        assert ours(tf.constant(maps), *target).numpy() == pytest.approx(expected, abs=1e-5)
        dynamic = tf.function(ours, input_signature=[tf.TensorSpec((None, None, None, 1)), *[tf.TensorSpec((), tf.int32)] * 2])
        assert dynamic(maps, *map(tf.constant, target)).numpy() == pytest.approx(expected, abs=1e-5)


def test_an_axis_of_equal_length_stays_as_it_is_and_weights_add_up_to_one():
    assert np.array_equal(interpolation(7, 7), np.eye(7))
    assert np.array_equal(interpolation(2, 4), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    assert interpolation(13, 5).numpy().sum(1) == pytest.approx(np.ones(5), abs=1e-6)


def test_nearest_keeps_whole_numbers():
    masks = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    assert nearest(masks, 2, 2).dtype == "uint8"
    assert nearest(masks, 2, 2).numpy()[0, ..., 0].tolist() == [[5, 7], [13, 15]]
