"""Losses against NumPy in float64, finite differences and values by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from marsls_keras.data.pipeline import evaluation_batches
from marsls_keras.errors import InputError
from marsls_keras.losses import LOSSES, WeightedSum, build_loss


def reference(name: str, truth, logits, weight=None) -> float:
    """A loss term in float64, written from its definition on the pixels of nonzero weight."""
    truth, logits = np.asarray(truth, np.float64).ravel(), np.asarray(logits, np.float64).ravel()
    if weight is not None:
        used = np.asarray(weight).ravel() > 0
        truth, logits = truth[used], logits[used]
    probability = 1 / (1 + np.exp(-logits))
    if name == "bce":
        return float(-np.mean(truth * np.log(probability) + (1 - truth) * np.log(1 - probability)))
    assert name == "dice"
    return float(1 - (2 * np.sum(probability * truth) + 1) / (np.sum(probability) + np.sum(truth) + 1))


def batch(seed: int = 0, shape=(2, 6, 5, 1)):
    rng = np.random.default_rng(seed)
    truth, weight = rng.integers(0, 2, shape).astype(np.float32), rng.integers(0, 2, shape).astype(np.float32)
    return truth, rng.normal(0, 3, shape).astype(np.float32), weight


def value(loss, *args) -> float:
    return float(keras.ops.convert_to_numpy(loss(*args)))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_terms_equal_numpy(name):
    truth, logits, weight = batch()
    loss = build_loss({name: 1.0})
    assert value(loss, truth, logits) == pytest.approx(reference(name, truth, logits), rel=2e-6)
    assert value(loss, truth, logits, weight) == pytest.approx(reference(name, truth, logits, weight), rel=2e-6)


def test_composition_is_the_weighted_sum():
    truth, logits, weight = batch(1)
    expected = 0.3 * reference("bce", truth, logits, weight) + 1.7 * reference("dice", truth, logits, weight)
    assert value(build_loss({"bce": 0.3, "dice": 1.7}), truth, logits, weight) == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_pixels_of_weight_zero_change_nothing(name):
    truth, logits, weight = batch(2)
    other_truth, other_logits = np.where(weight > 0, truth, 1 - truth), np.where(weight > 0, logits, 50 - logits)
    loss = build_loss({name: 1.0})
    assert value(loss, truth, logits, weight) == value(loss, other_truth, other_logits, weight)
    x = tf.Variable(logits)
    with tf.GradientTape() as tape:
        result = loss(truth, x, weight)
    gradient = tape.gradient(result, x).numpy()
    assert not gradient[weight == 0].any() and gradient[weight > 0].all()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_the_gradient_equals_central_finite_differences(name):
    truth, logits, weight = batch(3, (1, 3, 4, 1))
    logits.ravel()[:2] = 0  # a logit of exactly 0, as a network with dead units gives
    truth.ravel()[:2] = 0, 1
    weight.ravel()[:2] = 1
    x = tf.Variable(logits)
    with tf.GradientTape() as tape:
        result = build_loss({name: 1.0})(truth, x, weight)
    gradient, step = tape.gradient(result, x).numpy(), 1e-5
    expected = np.empty(logits.size)
    for i in range(logits.size):
        shift = np.zeros(logits.size)
        shift[i] = step
        up, down = (reference(name, truth, logits.astype(np.float64) + s * shift.reshape(logits.shape), weight) for s in (1, -1))
        expected[i] = (up - down) / (2 * step)
    assert gradient.ravel() == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(
    "truth,logit,bce,dice",
    [
        (0, -1e4, 0, 0),  # empty, predicted empty: (0 + 1) / (0 + 0 + 1)
        (0, 1e4, 1e4, 1 - 1 / 5),  # empty, predicted full: four pixels
        (1, 1e4, 0, 0),
        (1, -1e4, 1e4, 1 - 1 / 5),
        (0, 0, np.log(2), 1 - 1 / 3),
        (1, 0, np.log(2), 1 - 5 / 7),
    ],
)
def test_empty_and_full_masks_by_hand(truth, logit, bce, dice):
    mask, logits = np.full((1, 2, 2, 1), truth, np.float32), np.full((1, 2, 2, 1), logit, np.float32)
    assert value(build_loss({"bce": 1}), mask, logits) == pytest.approx(bce, rel=1e-6, abs=1e-7)
    assert value(build_loss({"dice": 1}), mask, logits) == pytest.approx(dice, rel=1e-6, abs=1e-7)


def test_a_batch_without_any_weight_costs_nothing():
    truth, logits, weight = batch(4)
    assert value(build_loss({"bce": 1, "dice": 1}), truth, logits, 0 * weight) == 0


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_huge_logits_have_finite_losses_and_gradients(name):
    logits = tf.Variable(np.array([1e4, -1e4, 1e4, -1e4], np.float32).reshape(1, 2, 2, 1))
    truth = np.array([1, 1, 0, 0], np.float32).reshape(1, 2, 2, 1)
    with tf.GradientTape() as tape:
        result = build_loss({name: 1.0})(truth, logits)
    # bce: two of four pixels cost 10,000; dice: probabilities 1, 0, 1, 0.
    assert float(result) == pytest.approx({"bce": 5e3, "dice": 1 - 3 / 5}[name], rel=1e-6)
    assert np.isfinite(tape.gradient(result, logits).numpy()).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_half_precision_logits_are_computed_in_float32(name, dtype):
    truth, logits, _ = batch(5, (4, 64, 64, 1))  # 16,384 pixels: more than float16 can add up one by one
    half = tf.cast(logits, dtype)
    result = build_loss({name: 1.0})(truth, half)
    assert result.dtype == tf.float32
    assert float(result) == pytest.approx(reference(name, truth, tf.cast(half, tf.float64).numpy()), rel=2e-5)


def test_masks_may_be_integers():
    truth, logits, weight = batch(6)
    loss = build_loss({"bce": 1, "dice": 1})
    assert value(loss, truth.astype(np.uint8), logits, weight) == value(loss, truth, logits, weight)


def test_round_trip_through_the_configuration():
    loss = build_loss({"bce": 0.25, "dice": 2.0})
    loss.name = "other"
    saved = keras.losses.serialize(loss)
    again = keras.losses.deserialize(saved, custom_objects={"WeightedSum": WeightedSum})
    assert again.get_config() == WeightedSum.from_config(loss.get_config()).get_config() == loss.get_config()
    assert (again.terms, again.name) == ({"bce": 0.25, "dice": 2.0}, "other")
    assert value(again, *batch(7)) == value(loss, *batch(7))


def test_an_unknown_name_is_an_error_that_lists_the_known():
    with pytest.raises(InputError) as caught:
        build_loss({"bce": 1, "dise": 1, "iuo": 1})
    assert "dise, iuo" in str(caught.value) and all(f"- {name}" in str(caught.value) for name in LOSSES)


def test_a_term_of_weight_zero_is_left_out():
    assert build_loss({"bce": 0, "dice": 2}).terms == {"dice": 2}


def test_evaluate_and_fit_use_the_weights_of_the_pipeline():
    rng = np.random.default_rng(8)
    images, masks = rng.normal(0, 2, (3, 8, 8, 1)).astype(np.float32), rng.integers(0, 2, (3, 8, 8)).astype(np.uint8)
    weights = rng.integers(0, 2, masks.shape).astype(np.float32)
    model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(1, 1, kernel_initializer="ones")])
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss=build_loss({"bce": 0.5, "dice": 0.5}), jit_compile=False)

    def expected(kernel, bias):
        logits = kernel * images[..., 0].astype(np.float64) + bias
        return 0.5 * reference("bce", masks, logits, weights) + 0.5 * reference("dice", masks, logits, weights)

    # Four tiles a batch, so that the fourth is padding of weight 0.
    batches = evaluation_batches(images, masks, batch_size=4, weights=weights)
    assert model.evaluate(batches, verbose=0) == pytest.approx(expected(1.0, 0.0), rel=1e-5)
    model.fit(batches, verbose=0)
    gradient = [(expected(1 + h, b) - expected(1 - h, b)) / 2e-5 for h, b in ((1e-5, 0.0),)]
    gradient.append((expected(1.0, 1e-5) - expected(1.0, -1e-5)) / 2e-5)
    kernel, bias = (float(w.ravel()[0]) for w in model.get_weights())
    assert (kernel, bias) == pytest.approx((1 - 0.5 * gradient[0], -0.5 * gradient[1]), rel=1e-4)
