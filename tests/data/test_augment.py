"""Augmentation: only exact symmetries, alike for all tensors, as often as configured."""

import numpy as np
import pytest
import tensorflow as tf

from marsls_keras.config import Augmentation
from marsls_keras.data.augment import Dihedral

SYMMETRIES = {
    "identity": lambda a: a,
    "left-right": lambda a: a[:, ::-1],
    "up-down": lambda a: a[::-1],
    "quarter": lambda a: a.swapaxes(0, 1)[::-1],
    "half": lambda a: a[::-1, ::-1],
    "three quarters": lambda a: a[::-1].swapaxes(0, 1),
    "transposed": lambda a: a.swapaxes(0, 1),
    "antitransposed": lambda a: a[::-1, ::-1].swapaxes(0, 1),
}


def tiles(number: int, size: int, bands: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((number, size, size, bands), dtype=np.float32)


def which(before: np.ndarray, after: np.ndarray) -> str:
    """The symmetry that leads from one tile to the other; exactly one of the eight must."""
    (found,) = [name for name, turn in SYMMETRIES.items() if np.array_equal(turn(before), after)]
    return found


def drawn(number: int = 200, seed: int = 5, **probabilities: float) -> dict[str, int]:
    """How often each symmetry comes."""
    batch = tiles(number, 3, 1)
    (turned,) = Dihedral(Augmentation(**probabilities), 3)((tf.constant(batch),), tf.constant([seed, 0]))
    names = [which(a, b) for a, b in zip(batch, turned.numpy(), strict=True)]
    return {name: names.count(name) for name in SYMMETRIES if name in names}


@pytest.mark.parametrize("size", [1, 4, 5])
def test_each_tile_becomes_one_of_its_symmetries_and_its_mask_alike(size):
    images, masks, weights = tiles(40, size, 7), (tiles(40, size, 1, 1) > 0.5).astype(np.float32), tiles(40, size, 2, 2)
    transform = Dihedral(Augmentation(), size)
    turned = [t.numpy() for t in transform((tf.constant(images), tf.constant(masks), tf.constant(weights)), tf.constant([1, 2]))]
    assert [t.shape for t in turned] == [images.shape, masks.shape, weights.shape]
    names = set()
    for i in range(40):
        name = which(images[i], turned[0][i]) if size > 1 else "identity"
        assert np.array_equal(SYMMETRIES[name](masks[i]), turned[1][i]) and np.array_equal(SYMMETRIES[name](weights[i]), turned[2][i])
        names.add(name)
    assert len(names) > 5 or size == 1


def test_all_eight_come_about_equally_often_by_default():
    counts = drawn(1600)
    assert len(counts) == 8
    # Chi-square with 7 degrees of freedom: 24.3 is exceeded once in a thousand.
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 24.3


@pytest.mark.parametrize(
    "probabilities,expected",
    [
        (dict(horizontal_flip=0, vertical_flip=0, rot90=0), {"identity": 200}),
        (dict(horizontal_flip=1, vertical_flip=0, rot90=0), {"left-right": 200}),
        (dict(horizontal_flip=0, vertical_flip=1, rot90=0), {"up-down": 200}),
        (dict(horizontal_flip=1, vertical_flip=1, rot90=0), {"half": 200}),
    ],
)
def test_probabilities_of_zero_and_one_are_certain(probabilities, expected):
    assert drawn(**probabilities) == expected


@pytest.mark.parametrize(
    "flip,expected",
    [
        (dict(horizontal_flip=0, vertical_flip=0), {"identity", "quarter", "half", "three quarters"}),
        (dict(horizontal_flip=1, vertical_flip=0), {"left-right", "up-down", "transposed", "antitransposed"}),
    ],
)
def test_quarter_turns_are_drawn_evenly(flip, expected):
    counts = drawn(1200, rot90=1, **flip)
    assert set(counts) == expected
    assert sum((count - 300) ** 2 / 300 for count in counts.values()) < 16.3  # 3 degrees of freedom, once in a thousand


def test_probabilities_in_between():
    # Standard deviation of a share in 2,000 draws: at most 0.011.
    flips = drawn(2000, horizontal_flip=0.25, vertical_flip=0.5, rot90=0)
    expected = {"identity": 0.375, "left-right": 0.125, "up-down": 0.375, "half": 0.125}
    assert {name: count / 2000 for name, count in flips.items()} == pytest.approx(expected, abs=0.045)
    turns = drawn(2000, horizontal_flip=0, vertical_flip=0, rot90=0.4)
    expected = {"identity": 0.7, "quarter": 0.1, "half": 0.1, "three quarters": 0.1}
    assert {name: count / 2000 for name, count in turns.items()} == pytest.approx(expected, abs=0.045)


def test_equal_seeds_give_equal_batches_eagerly_and_in_a_graph():
    transform, batch = Dihedral(Augmentation(), 4), (tf.constant(tiles(16, 4, 2)),)
    first = transform(batch, tf.constant([3, 7]))[0]
    assert np.array_equal(first, tf.function(transform)(batch, tf.constant([3, 7]))[0])
    for other in ([3, 8], [4, 7]):
        assert not np.array_equal(first, transform(batch, tf.constant(other))[0])
