"""The tf.data pipelines, checked with tiles whose pixels encode their position."""

import numpy as np
import pytest
import tensorflow as tf

from marsls_keras.config import Augmentation
from marsls_keras.data.pipeline.batches import TrainingBatches, evaluation_batches, steps_per_epoch

STILL = Augmentation(horizontal_flip=0, vertical_flip=0, rot90=0)


def coded(number: int, size: int = 4, width: int | None = None):
    """Return images with the channels tile, row, column; and masks and weights computed from those."""
    tile, row, column = np.meshgrid(np.arange(number), np.arange(size), np.arange(width or size), indexing="ij")
    return (
        np.stack([tile, row, column], -1).astype(np.float32),
        mask_of(tile, row, column),
        weight_of(tile, row, column),
    )


def mask_of(tile, row, column):
    return ((3 * row + 5 * column + tile) % 3 == 0).astype(np.uint8)


def weight_of(tile, row, column):
    return ((tile + row * column) % 2).astype(np.float32)


def take(batches, *start) -> list[tuple[np.ndarray, ...]]:
    dataset = batches.dataset(*start) if isinstance(batches, TrainingBatches) else batches
    return [tuple(t.numpy() for t in element) for element in dataset]


def same(a, b) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
    )


def training(number=7, weights=False, augmentation=None, **options):
    images, masks, w = coded(number)
    settings = {
        "batch_size": 3,
        "seed": 1,
        "epochs": 4,
        "bands": ("red", "dem", "gray"),
        "units": np.ones(3, np.float32),
        **options,
    }
    return TrainingBatches(
        images, masks, augmentation=augmentation or Augmentation(), weights=w if weights else None, **settings
    )


@pytest.mark.parametrize("tiles,size,steps", [(400, 16, 25), (7, 3, 2), (8, 3, 3), (2, 16, 1), (1, 1, 1), (5, 5, 1)])
def test_steps_hold_about_every_tile_once(tiles, size, steps):
    assert steps_per_epoch(tiles, size) == steps


def test_image_mask_and_weight_move_together():
    turned = 0
    for image, mask, weight in take(training(weights=True)):
        tile, row, column = image[..., :1], image[..., 1:2], image[..., 2:]
        assert image.dtype == mask.dtype == weight.dtype == np.float32
        assert np.array_equal(mask, mask_of(tile, row, column)) and np.array_equal(weight, weight_of(tile, row, column))
        # Whole tiles, each pixel once.
        assert (tile == tile[:, :1, :1]).all()
        assert [sorted(places) for places in (4 * row + column).reshape(3, 16).tolist()] == [list(range(16))] * 3
        turned += (row[:, 0, 0] + column[:, 0, 0] > 0).sum()
    assert turned > 0


def test_a_tile_comes_in_all_its_symmetries_and_no_other_form():
    images, _, _ = coded(7)
    found = set()
    for image, _, _ in take(training(epochs=20)):
        for x in image:
            tile = images[int(x[0, 0, 0])]
            forms = [np.rot90(np.fliplr(tile) if mirrored else tile, k) for k in range(4) for mirrored in range(2)]
            (which,) = [number for number, form in enumerate(forms) if np.array_equal(form, x)]
            found.add(which)
    assert found == set(range(8))


def test_masks_stay_zero_and_one_and_weights_are_one_by_default():
    for _, mask, weight in take(training()):
        assert set(np.unique(mask)) == {0.0, 1.0} and (weight == 1).all()


def test_the_shapes_are_known_beforehand():
    assert [tuple(spec.shape) for spec in training().dataset().element_spec] == [
        (3, 4, 4, 3),
        (3, 4, 4, 1),
        (3, 4, 4, 1),
    ]
    images, masks, _ = coded(5)
    spec = evaluation_batches(images, masks, batch_size=2).element_spec
    assert [tuple(s.shape) for s in spec] == [(2, 4, 4, 3), (2, 4, 4, 1), (2, 4, 4, 1)] and {s.dtype for s in spec} == {
        tf.float32
    }


def test_the_seed_alone_decides():
    assert same(take(training()), take(training()))
    assert not same(take(training()), take(training(seed=2)))
    assert not same(take(training(augmentation=STILL)), take(training(augmentation=STILL, seed=2)))


def test_the_largest_seed_of_the_configuration_works():
    assert len(take(training(seed=2**31 - 1))) == 8


@pytest.mark.parametrize("augmentation", [Augmentation(), STILL])
def test_epochs_differ_and_a_later_start_gives_the_same_batches(augmentation):
    batches = training(augmentation=augmentation, weights=True)
    whole, steps = take(batches), batches.steps_per_epoch
    assert steps == steps_per_epoch(7, 3) and len(whole) == 4 * steps
    epochs = [whole[k * steps : (k + 1) * steps] for k in range(4)]
    assert not any(same(epochs[a], epochs[b]) for a in range(4) for b in range(a))
    for start in (1, 4, 7):  # within and between epochs of two steps
        assert same(take(batches, start), whole[start:])
    longer = take(training(augmentation=augmentation, weights=True, epochs=6))
    assert len(longer) == 6 * steps and same(longer[: 4 * steps], whole)


def test_strongly_changed_tiles_are_the_same_after_a_start_within_an_epoch():
    batches = training(augmentation=Augmentation(preset="strong"), weights=True)
    whole = take(batches)
    assert not same(whole, take(training(weights=True)))
    assert same(take(batches, 5), whole[5:])


@pytest.mark.parametrize("number,size,epochs", [(7, 3, 4), (7, 3, 7), (2, 5, 3), (10, 4, 3), (5, 1, 2)])
def test_every_tile_comes_equally_often(number, size, epochs):
    batches = take(training(number, batch_size=size, epochs=epochs))
    assert all(len(image) == size for image, _, _ in batches)
    seen = np.concatenate([image[:, 0, 0, 0] for image, _, _ in batches]).astype(int)
    assert len(seen) == epochs * steps_per_epoch(number, size) * size
    counts = np.bincount(seen, minlength=number)
    assert counts.max() - counts.min() <= 1
    # The stream is one permutation of all tiles after another.
    for k in range(len(seen) // number):
        assert sorted(seen[k * number : (k + 1) * number]) == list(range(number))


def test_without_augmentation_tiles_stay_as_they_are():
    images, masks, weights = coded(7)
    for image, mask, weight in take(training(augmentation=STILL, weights=True)):
        tiles = image[:, 0, 0, 0].astype(int)
        assert np.array_equal(image, images[tiles])
        assert np.array_equal(mask[..., 0], masks[tiles]) and np.array_equal(weight[..., 0], weights[tiles])


def test_the_tiles_of_a_step_can_be_named():
    batches = training(augmentation=STILL)
    for step, (image, _, _) in enumerate(take(batches)):
        assert batches.tiles_at(step).tolist() == sorted(set(image[:, 0, 0, 0].astype(int)))


@pytest.mark.parametrize("height,width", [(4, 6), (7, 3)])
def test_tiles_that_are_not_square_are_mirrored_and_turned_by_180(height, width):
    images, masks, weights = coded(4, height, width)
    turning = Augmentation(horizontal_flip=0.5, vertical_flip=0.5, rot90=1)
    options = {"augmentation": turning, "bands": ("red", "dem", "gray"), "units": np.ones(3), "seed": 0, "epochs": 20}
    seen = set()
    for image, mask, weight in take(TrainingBatches(images, masks, batch_size=2, weights=weights, **options)):
        assert image.shape[1:3] == (height, width)
        for i in range(2):
            tile = round(image[i, ..., 0].min())
            ways = [(a, b) for a in (1, -1) for b in (1, -1) if np.array_equal(image[i], images[tile][::a, ::b])]
            assert len(ways) == 1
            a, b = ways[0]
            np.testing.assert_array_equal(mask[i, ..., 0], masks[tile][::a, ::b])
            np.testing.assert_array_equal(weight[i, ..., 0], weights[tile][::a, ::b])
            seen.add(ways[0])
    assert len(seen) == 4


@pytest.mark.parametrize("number,size", [(5, 2), (4, 2), (3, 8), (1, 1)])
@pytest.mark.parametrize("weighted", [False, True])
def test_evaluation_gives_every_tile_once_in_order(number, size, weighted):
    images, masks, weights = coded(number, 4, 6)  # tiles need not be square
    batches = take(evaluation_batches(images, masks, batch_size=size, weights=weights if weighted else None))
    assert len(batches) == -(-number // size) and all(len(image) == size for image, _, _ in batches)
    image, mask, weight = (np.concatenate([batch[i] for batch in batches]) for i in range(3))
    assert np.array_equal(image[:number], images) and np.array_equal(mask[:number, ..., 0], masks)
    assert np.array_equal(weight[:number, ..., 0], weights if weighted else np.ones_like(weights))
    assert not weight[number:].any() and np.isfinite(image[number:]).all()
