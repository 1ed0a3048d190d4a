"""All augmentations together: probabilities, seeds, order, shapes, and the presets' effect on tiles."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.augmentation import OFF, SEED, augment, batch

from marsls_keras.bands.names import BANDS
from marsls_keras.config import PRESETS, Augmentation
from marsls_keras.data.augmentation import augment as augment_module
from marsls_keras.data.augmentation.augment import Augment

CHANGES = {
    "mosaic": lambda p: {"mosaic": p},
    "cutmix": lambda p: {"cutmix": p},
    "affine": lambda p: {"affine": {"probability": p}},
    "crop": lambda p: {"crop": {"probability": p}},
    "elastic": lambda p: {"elastic": {"probability": p}},
    "blur": lambda p: {"blur": {"probability": p}},
    "light": lambda p: {"light": {"probability": p}},
    "noise": lambda p: {"noise": {"probability": p}},
    "channel_dropout": lambda p: {"channel_dropout": p},
}
EVERYTHING = {key: value for change in CHANGES.values() for key, value in change(0.6).items()}


def changed(tiles, **changes):
    """Return which tiles have changed."""
    return (augment(tiles, **changes)[0] != tiles[0]).any((1, 2, 3))


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_comes_as_often_as_configured_and_tiles_draw_for_themselves(name):
    tiles = batch(1000)
    assert changed(tiles, **CHANGES[name](1.0)).mean() > 0.98  # a mosaic or a partner can be the tile itself
    drawn = changed(tiles, **CHANGES[name](0.3))
    assert drawn.mean() == pytest.approx(0.3, abs=0.06)  # four standard deviations of 1,000 draws
    assert (drawn[1:] & drawn[:-1]).mean() == pytest.approx(0.09, abs=0.04)


def test_without_changes_nothing_is_added_to_the_graph():
    change = Augment(Augmentation(), BANDS, np.ones(7))  # flips and quarter turns are done by the pipeline
    tiles = tuple(map(tf.constant, batch(2)))
    assert all(new is old for new, old in zip(change(*tiles, SEED), tiles, strict=True))


@pytest.mark.parametrize(
    "names", [("mosaic",), ("cutmix",), ("affine", "crop", "elastic"), ("elastic",), ("blur",), ("noise",)]
)
def test_changes_of_probability_0_are_not_in_the_graph(names):
    def operations(probability):
        changes = {
            key: value
            for name, make in CHANGES.items()
            for key, value in make(probability if name in names else 0.5).items()
        }
        change = Augment(Augmentation(**OFF, **changes), BANDS, np.ones(7))
        shapes = [tf.TensorSpec((None, 16, 16, c)) for c in (7, 1, 1)]
        graph = tf.function(change).get_concrete_function(*shapes, tf.TensorSpec((2,), tf.int32)).graph.as_graph_def()
        return len(graph.node) + sum(len(function.node_def) for function in graph.library.function)

    assert operations(0.0) < operations(0.1) == operations(0.5)


def test_equal_seeds_give_equal_batches_eagerly_in_a_graph_and_in_a_pipeline():
    tiles = batch(6)
    change = Augment(Augmentation(**OFF, **EVERYTHING), BANDS, np.ones(7))
    run = tf.function(change)  # traced once, since tracing is slow
    first = [values.numpy() for values in run(*map(tf.constant, tiles), SEED)]

    def at(step):
        return change(*map(tf.constant, tiles), tf.stack([3, tf.cast(step, tf.int32)]))

    *_, seventh, eighth = tf.data.Dataset.range(9).map(at, num_parallel_calls=3)
    for a, b, c, d in zip(
        first, augment(tiles, **EVERYTHING), augment(tiles, graph=False, **EVERYTHING), seventh, strict=True
    ):
        assert np.array_equal(a, b) and np.array_equal(a, c) and np.array_equal(a, d)
    assert not np.array_equal(first[0], eighth[0])
    for seed in ([3, 8], [4, 7]):
        assert not np.array_equal(first[0], run(*map(tf.constant, tiles), tf.constant(seed))[0])


@pytest.mark.parametrize("name", ["affine", "elastic", "noise"])
def test_equal_tiles_of_a_batch_are_changed_differently(name):
    tiles = tuple(values[:1].repeat(5, 0) for values in batch(1))
    image = augment(tiles, **CHANGES[name](1.0))[0]
    assert not any(np.allclose(image[a], image[b], atol=0.01) for a in range(5) for b in range(a))


def test_switching_one_change_on_leaves_the_draws_of_the_others():
    tiles = batch(40)
    alone = augment(tiles, affine={"probability": 0.5}, light={"probability": 0.5})
    more = augment(tiles, affine={"probability": 0.5}, light={"probability": 0.5}, channel_dropout=0.5)
    lost = (more[0] == 0).all((1, 2), keepdims=True)
    assert 0.05 < lost.mean() < 0.3
    assert np.array_equal(np.where(lost, 0, alone[0]), more[0]) and np.array_equal(alone[1], more[1])


def test_a_lost_modality_stays_lost_after_light_and_noise():
    image = augment(batch(40), light={"probability": 1}, noise={"probability": 1}, channel_dropout=1)[0]
    lost = (image == 0).all((1, 2))
    assert lost.any(1).all() and lost[:, :3].all(1).any()


@pytest.mark.parametrize("preset", PRESETS)
def test_masks_stay_zero_and_one_and_weights_keep_to_their_values_with_every_preset(preset):
    tiles = batch(32, 24, 24)
    change = Augment(Augmentation(preset=preset), BANDS, np.ones(7))
    image, mask, weight = (v.numpy() for v in tf.function(change)(*map(tf.constant, tiles), SEED))
    assert set(np.unique(mask)) == {0.0, 1.0} and set(np.unique(weight)) == {0.5, 1.0}
    assert image.dtype == mask.dtype == weight.dtype == np.float32 and np.isfinite(image).all()
    assert np.array_equal(image, tiles[0]) == (preset in ("none", "flips"))
    # About as much landslide as before, except with CutMix, which adds some.
    assert mask.mean() - tiles[1].mean() == pytest.approx(0.15 if preset in ("rmau_net", "strong") else 0, abs=0.12)


def test_pixels_of_weight_0_stay_without_weight():
    # A window that extends beyond the published tiles: no transform may give weight to its empty part.
    tiles = batch(16, 24, 24)
    tiles[0][:, :, :12], tiles[2][:, :, :12] = 5, 1
    for values in tiles:
        values[:, :, 12:] = 0
    changes = {key: value for key, value in EVERYTHING.items() if key not in ("noise", "light", "blur")}
    image, _, weight = augment(tiles, **changes)
    gray = image[..., 6]
    counted = weight[..., 0] == 1
    # The nearest of four pixels has at least a quarter of the weight.
    assert ((gray >= 1.25 - 1e-4) | (gray == 0).all((1, 2), keepdims=True))[counted].all() and counted.mean() > 0.3


@pytest.mark.parametrize(
    "number,height,width,bands", [(1, 96, 96, BANDS), (2, 256, 256, ("dem", "red")), (3, 20, 28, ("gray",))]
)
def test_any_batch_size_any_size_and_any_choice_of_bands(number, height, width, bands):
    tiles = batch(number, height, width, len(bands))
    everything = {**EVERYTHING, **CHANGES["affine"](1.0)}
    result = augment(tiles, bands=bands, **everything)
    assert [v.shape for v in result] == [v.shape for v in tiles] and not np.array_equal(result[0], tiles[0])


@pytest.mark.parametrize("number", [None, 4])
def test_shapes_are_known_beforehand(number):
    change = Augment(Augmentation(**EVERYTHING), BANDS, np.ones(7))
    shapes = [tf.TensorSpec((number, 16, 16, c)) for c in (7, 1, 1)]
    made = tf.function(change).get_concrete_function(*shapes, tf.TensorSpec((2,), tf.int32))
    assert [tuple(v.shape) for v in made.structured_outputs] == [(number, 16, 16, c) for c in (7, 1, 1)]
    assert [len(v) for v in made(*map(tf.constant, batch(4)), SEED)] == [4, 4, 4]


def test_a_new_transform_leaves_the_draws_of_the_others_as_they_are(monkeypatch):
    class Fog:
        """Transform that draws numbers and changes nothing."""

        active = True

        def draw(self, number, height, width, seed):
            return (tf.random.stateless_uniform((number,), seed),)

        def __call__(self, tile, draws, batch):
            return tile

    tiles = batch()
    before = augment(tiles, **EVERYTHING)
    monkeypatch.setattr(augment_module, "AUGMENTATIONS", {"fog": lambda *_: Fog(), **augment_module.AUGMENTATIONS})
    for old, new in zip(before, augment(tiles, **EVERYTHING), strict=True):
        np.testing.assert_array_equal(old, new)
    names = [*augment_module.AUGMENTATIONS, "rain", "snow"]
    assert len({augment_module.stream(name) for name in names}) == len(names)


@pytest.mark.parametrize("name,number,change", [("mosaic", 0, {"mosaic": 1.0}), ("cutmix", 1, {"cutmix": 1.0})])
def test_streams_are_those_of_earlier_versions(name, number, change):
    tiles = tuple(map(tf.constant, batch()))
    transform = augment_module.AUGMENTATIONS[name](Augmentation(**change), BANDS, [1.0] * 7)
    draws = transform.draw(tf.constant(4), 16, 16, tf.random.experimental.stateless_fold_in(SEED, number))
    expected = transform(tuple(part[2] for part in tiles), tuple(drawn[2] for drawn in draws), tiles)
    for part, found in zip(expected, augment(batch(), **change), strict=True):
        np.testing.assert_array_equal(part, found[2])
