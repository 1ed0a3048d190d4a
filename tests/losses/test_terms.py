"""Loss terms against NumPy in float64, scikit-learn, finite differences and values by hand."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.loss_references import REFERENCES, reference
from sklearn.metrics import f1_score, jaccard_score

from marsls_keras.errors import InputError
from marsls_keras.losses import LOSSES, build_loss, positive_weight

NAMES = sorted(LOSSES)
OTHER_PARAMETERS = {
    "bce": {"label_smoothing": 0.2},
    "weighted_bce": {"label_smoothing": 0.1, "positive_weight": 0.4},
    "focal": {"alpha": None, "gamma": 0.5, "label_smoothing": 0.3},
    "dice": {"smooth": 0.0, "epsilon": 0.1},
    "iou": {"smooth": 0.25},
    "tversky": {"alpha": 0.9, "beta": 0.2, "smooth": 0.0},
    "boundary": {"theta0": 5, "theta": 3, "smooth": 0.0},
    "boundary_dice": {"radius": 1, "smooth": 0.0, "epsilon": 1e-7},
}
CASES = [(name, {}) for name in NAMES] + list(OTHER_PARAMETERS.items())


def batch(seed: int = 0, shape=(3, 6, 5, 1)):
    """Return masks with regions, logits, and weights 0, 0.5, 1 and 2, which are all 0 in the last tile."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(shape, np.float32)
    for tile in truth:
        top, left = rng.integers(0, shape[1] - 2), rng.integers(0, shape[2] - 2)
        tile[top : top + rng.integers(2, shape[1]), left : left + rng.integers(2, shape[2])] = 1
    weight = rng.choice([0, 0.5, 1, 1, 2], shape).astype(np.float32)
    weight[-1] = 0
    return truth, rng.normal(0, 3, shape).astype(np.float32), weight


QUARTER = np.array([0, 0, 0, 1], np.uint8)
"""Masks with three pixels of the rest for one of landslide, so that the positive weight is 3."""


def loss_of(name: str, **parameters):
    return build_loss({name: parameters}, QUARTER)


def complete(name: str, parameters: dict) -> dict:
    """Return the additional parameters of the reference."""
    return {"positive_weight": 3.0} | parameters if name == "weighted_bce" else parameters


def value(loss, *args) -> float:
    return float(keras.ops.convert_to_numpy(loss(*args)))


def gradient(loss, truth, logits, *weight) -> np.ndarray:
    x = tf.Variable(logits)
    with tf.GradientTape() as tape:
        result = loss(truth, x, *weight)
    return tape.gradient(result, x).numpy()


@pytest.mark.parametrize("reduction", ["pooled", "per_tile"])
@pytest.mark.parametrize("name,parameters", CASES)
def test_terms_equal_numpy(name, parameters, reduction):
    truth, logits, weight = batch()
    loss, expected = loss_of(name, reduction=reduction, **parameters), complete(name, parameters)
    for weights in ((), (weight,), ((weight > 0).astype(np.float32),)):
        assert value(loss, truth, logits, *weights) == pytest.approx(
            reference(name, truth, logits, *weights, reduction=reduction, **expected), rel=5e-6
        )


def test_there_is_a_reference_for_each_term():
    assert set(REFERENCES) == set(LOSSES)


@pytest.mark.parametrize("reduction", ["pooled", "per_tile"])
@pytest.mark.parametrize("name,parameters", CASES)
def test_the_gradient_equals_central_finite_differences(name, parameters, reduction):
    truth, logits, weight = batch(3, (2, 4, 4, 1))
    logits.ravel()[:2] = 0  # a logit of exactly 0, as a network with dead units gives
    if name in ("boundary", "lovasz"):
        logits.ravel()[1] = 0.01  # the largest of equal values has no derivative, nor has their order
    weight.ravel()[:2] = 1
    computed = gradient(loss_of(name, reduction=reduction, **parameters), truth, logits, weight)
    expected, step = np.empty(logits.size), 1e-5
    for i in range(logits.size):
        shift = np.zeros(logits.shape)
        shift.flat[i] = step
        up, down = (
            reference(
                name, truth, logits.astype(np.float64) + s * shift, weight, reduction, **complete(name, parameters)
            )
            for s in (1, -1)
        )
        expected[i] = (up - down) / (2 * step)
    assert np.abs(expected).max() > 1e-4
    assert computed.ravel() == pytest.approx(expected, rel=2e-4, abs=2e-7)


@pytest.mark.parametrize("reduction", ["pooled", "per_tile"])
@pytest.mark.parametrize("name", NAMES)
def test_pixels_of_weight_zero_change_nothing(name, reduction):
    truth, logits, weight = batch(2, (3, 9, 8, 1))
    loss = loss_of(name, reduction=reduction)
    before = value(loss, truth, logits, weight)
    rng, ignored = np.random.default_rng(9), weight == 0
    for junk in (
        50 - logits,
        rng.normal(0, 9, logits.shape),
        np.full(logits.shape, np.inf),
        np.full(logits.shape, np.nan),
    ):
        other_truth = np.where(ignored, rng.integers(0, 2, truth.shape), truth).astype(np.float32)
        other_logits = np.where(ignored, junk, logits).astype(np.float32)
        assert value(loss, other_truth, other_logits, weight) == before
        derivative = gradient(loss, other_truth, other_logits, weight)
        assert np.isfinite(derivative).all() and not derivative[ignored].any()
        assert np.array_equal(derivative, gradient(loss, truth, logits, weight))


@pytest.mark.parametrize("name", ["boundary", "boundary_dice"])
def test_the_edge_of_an_ignored_area_is_no_boundary(name):
    truth = np.ones((1, 8, 8, 1), np.float32)
    truth[:, :, 5:] = 0
    weight = np.ones_like(truth)
    weight[:, :, 5:] = 0  # what is left is landslide everywhere
    logits = np.where(truth == 1, 1e4, -1e4).astype(np.float32)
    full = np.full_like(logits, 1e4)
    assert value(loss_of(name), truth, logits, weight) == value(loss_of(name), truth, full, weight) == 0
    assert value(loss_of(name), truth, full) > 0.2


@pytest.mark.parametrize(
    "name,score,factor,scale",
    [("dice", f1_score, 1, 1e4), ("iou", jaccard_score, 1, 1e4), ("lovasz", jaccard_score, 2, 1)],
)
def test_overlaps_of_hard_predictions_are_those_of_scikit_learn(name, score, factor, scale):
    truth, logits, weight = batch(4, (2, 16, 16, 1))
    weight = np.maximum(weight, 0.5)
    parameters = {} if name == "lovasz" else {"smooth": 0}
    expected = score(truth.ravel(), logits.ravel() > 0, sample_weight=weight.ravel())
    computed = value(loss_of(name, **parameters), truth, np.sign(logits) * scale, weight)
    assert computed == pytest.approx(factor * (1 - expected), rel=1e-5)


def test_lovasz_of_an_empty_mask_is_the_largest_error():
    logits = np.array([-3, 0.25, -0.5, 2], np.float32).reshape(1, 2, 2, 1)
    assert value(loss_of("lovasz"), np.zeros_like(logits), logits) == 3
    weight = np.array([1, 1, 1, 0], np.float32).reshape(logits.shape)
    assert value(loss_of("lovasz"), np.zeros_like(logits), logits, weight) == 1.25


def test_lovasz_steps_keep_their_digits_among_many_pixels():
    rng = np.random.default_rng(5)
    truth = (rng.random((1, 256, 256, 1)) < 0.3).astype(np.float32)
    errors = rng.permutation(truth.size).reshape(truth.shape) / 2**13  # all different, and exact in float32
    derivative = -gradient(loss_of("lovasz"), truth, ((1 - errors) * (2 * truth - 1)).astype(np.float32)) * (
        2 * truth - 1
    )
    order = np.argsort(-errors.ravel())
    landslide = truth.ravel()[order].astype(np.float64)
    jaccard = 1 - (landslide.sum() - np.cumsum(landslide)) / (landslide.sum() + np.cumsum(1 - landslide))
    expected = np.where(errors.ravel()[order] > 0, np.diff(jaccard, prepend=0), 0)
    assert derivative.ravel()[order] == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_boundaries_of_hard_predictions_by_hand():
    truth = np.zeros((1, 20, 20, 1), np.float32)
    truth[:, 2:8, 2:8] = 1  # its boundary are the 20 outer pixels of 6 x 6
    logits = np.where(truth == 1, 1e4, -1e4).astype(np.float32)
    boundary = loss_of("boundary", smooth=0)
    assert value(boundary, truth, logits) == 0
    # A shift by two pixels leaves all of the boundary within two pixels of the true one, a shift by ten leaves none of
    # it.
    assert value(boundary, truth, np.roll(logits, 2, axis=1)) == 0
    assert value(boundary, truth, np.roll(logits, 10, axis=(1, 2))) == 1
    assert value(loss_of("boundary", theta=3, smooth=0), truth, np.roll(logits, 2, axis=1)) == pytest.approx(
        1 - 12 / 20
    )
    assert value(boundary, truth, -logits) == 0  # with both classes swapped the boundaries lie beside each other


def test_boundary_dice_sees_only_the_band_around_the_boundary():
    truth = np.zeros((1, 8, 12, 1), np.float32)
    truth[:, :, :6] = 1
    logits = np.zeros_like(truth)
    expected = 1 - (2 * 8 * 0.5 + 1) / (16 * 0.5 + 8 + 1)  # radius 1: columns 5 and 6
    assert value(loss_of("boundary_dice", radius=1), truth, logits) == pytest.approx(expected)
    logits[:, :, :5], logits[:, :, 7:] = -9, 9
    assert value(loss_of("boundary_dice", radius=1), truth, logits) == pytest.approx(expected)


def test_a_prediction_that_is_the_same_everywhere_has_no_distance_from_its_centres():
    truth, logits, weight = batch(6)
    assert value(loss_of("center"), truth, np.full_like(logits, 0.3), weight) == pytest.approx(0, abs=1e-12)
    apart = np.where(truth == 1, 2, -2).astype(np.float32)
    assert value(loss_of("center"), truth, apart, weight) == pytest.approx(0, abs=1e-12)
    # Both classes have pixels at 0 and at 1, centre 1/2.
    half = np.array([-50, 50, -50, 50], np.float32).reshape(1, 2, 2, 1)
    assert value(loss_of("center"), np.array([0, 0, 1, 1], np.float32).reshape(1, 2, 2, 1), half) == pytest.approx(
        1 / 8
    )


def test_small_errors_are_not_rounded_away_in_log_cosh():
    logits = np.full((1, 2, 2, 1), -8, np.float32)
    error = 1 / (1 + np.exp(8.0))
    assert value(loss_of("log_cosh"), np.zeros_like(logits), logits) == pytest.approx(error**2 / 2, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_per_tile_is_the_mean_over_the_tiles_that_have_weight(name):
    truth, logits, weight = batch(7, (4, 8, 8, 1))
    loss, pooled = loss_of(name, reduction="per_tile"), loss_of(name)
    each = [
        value(pooled, truth[i : i + 1], logits[i : i + 1], weight[i : i + 1]) for i in range(3)
    ]  # the fourth has no weight
    assert value(loss, truth, logits, weight) == pytest.approx(np.mean(each), rel=1e-6)
    assert abs(value(pooled, truth, logits, weight) - np.mean(each)) > 1e-5


@pytest.mark.parametrize(
    "truth,logit,expected",
    [
        # bce, dice = 1 - (2tp + 1)/(p + t + 1), iou, tversky, lovasz of four pixels
        (0, -1e4, {"bce": 0, "dice": 0, "iou": 0, "tversky": 0, "lovasz": 0}),
        (0, 1e4, {"bce": 1e4, "dice": 1 - 1 / 5, "iou": 1 - 1 / 5, "tversky": 1 - 1 / 2.2, "lovasz": 1e4 + 1}),
        (1, 1e4, {"bce": 0, "dice": 0, "iou": 0, "tversky": 0, "lovasz": 0}),
        (1, -1e4, {"bce": 1e4, "dice": 1 - 1 / 5, "iou": 1 - 1 / 5, "tversky": 1 - 1 / 3.8, "lovasz": 1e4 + 1}),
        (0, 0, {"bce": np.log(2), "dice": 1 - 1 / 3, "iou": 1 - 1 / 3, "tversky": 1 - 1 / 1.6, "lovasz": 1}),
        (1, 0, {"bce": np.log(2), "dice": 1 - 5 / 7, "iou": 1 - 3 / 5, "tversky": 1 - 3 / 4.4, "lovasz": 1}),
    ],
)
def test_empty_and_full_masks_by_hand(truth, logit, expected):
    mask, logits = np.full((1, 2, 2, 1), truth, np.float32), np.full((1, 2, 2, 1), logit, np.float32)
    right = (logit > 0) == truth
    expected |= {"weighted_bce": expected["bce"] * (3 if truth else 1), "center": 0, "boundary": 0, "boundary_dice": 0}
    expected |= {"focal": expected["bce"] * (0.25 if truth else 0.75) * (0.25 if logit == 0 else 0 if right else 1)}
    expected |= {"log_cosh": np.log(np.cosh(0.5 if logit == 0 else float(not right)))}
    assert set(expected) == set(LOSSES)
    for name in NAMES:
        for reduction in ("pooled", "per_tile"):
            loss = loss_of(name, reduction=reduction)
            assert value(loss, mask, logits) == pytest.approx(expected[name], rel=1e-6, abs=1e-7), name
            assert np.isfinite(gradient(loss, mask, logits)).all(), name


@pytest.mark.parametrize("reduction", ["pooled", "per_tile"])
@pytest.mark.parametrize("name,parameters", CASES)
def test_huge_logits_have_finite_losses_and_gradients(name, parameters, reduction):
    logits = np.tile(np.array([1e4, -1e4, 0, -100], np.float32), 8).reshape(2, 4, 4, 1)
    truth = np.repeat(np.array([0, 1, 1, 0], np.float32), 8).reshape(2, 4, 4, 1)
    loss = loss_of(name, reduction=reduction, **parameters)
    assert np.isfinite(value(loss, truth, logits))
    assert np.isfinite(gradient(loss, truth, logits)).all()


@pytest.mark.parametrize("reduction", ["pooled", "per_tile"])
@pytest.mark.parametrize("name,parameters", CASES)
def test_a_batch_without_any_weight_costs_nothing(name, parameters, reduction):
    truth, logits, weight = batch(4)
    loss = loss_of(name, reduction=reduction, **parameters)
    assert value(loss, truth, logits, 0 * weight) == 0
    assert not gradient(loss, truth, logits, 0 * weight).any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_logits_are_computed_in_float32(name, dtype):
    truth, logits, weight = batch(5, (4, 64, 64, 1))  # 16,384 pixels: more than float16 can add up one by one
    half = tf.cast(logits, dtype)
    result = loss_of(name)(truth, half, weight)
    assert result.dtype == tf.float32
    assert float(result) == value(loss_of(name), truth, tf.cast(half, tf.float32), weight)


def test_masks_may_be_integers():
    truth, logits, weight = batch(6)
    loss = build_loss(dict.fromkeys(NAMES, 1), QUARTER)
    assert value(loss, truth.astype(np.uint8), logits, weight) == value(loss, truth, logits, weight)


@pytest.mark.parametrize(
    "options", [{"jit_compile": True}, {"input_signature": [tf.TensorSpec((None, None, None, 1))] * 3}]
)
def test_compiled_steps_and_unknown_sizes_give_the_same(options):
    args = batch(8)
    for spec in (dict.fromkeys(NAMES, 1), dict.fromkeys(NAMES, {"reduction": "per_tile"})):
        loss = build_loss(spec, QUARTER)

        @tf.function(**options)
        def step(truth, logits, weight, loss=loss):
            with tf.GradientTape() as tape:
                tape.watch(logits)
                result = loss(truth, logits, weight)
            return result, tape.gradient(result, logits)

        result, derivative = step(*map(tf.constant, args))
        assert float(result) == pytest.approx(value(loss, *args), rel=1e-6)
        assert derivative.numpy() == pytest.approx(gradient(loss, *args), rel=1e-5, abs=1e-7)


def test_evaluate_and_fit_use_the_weights_of_the_pipeline():
    from marsls_keras.data.pipeline.batches import evaluation_batches

    rng = np.random.default_rng(8)
    images, masks = rng.normal(0, 2, (3, 8, 8, 1)).astype(np.float32), rng.integers(0, 2, (3, 8, 8)).astype(np.uint8)
    weights = rng.integers(0, 2, masks.shape).astype(np.float32)
    model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(1, 1, kernel_initializer="ones")])
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss=build_loss({"bce": 0.5, "dice": 0.5}), jit_compile=False)

    def expected(kernel, bias):
        logits = kernel * images.astype(np.float64) + bias
        return sum(0.5 * reference(name, masks[..., None], logits, weights[..., None]) for name in ("bce", "dice"))

    # Four tiles a batch, so that the fourth is padding of weight 0.
    batches = evaluation_batches(images, masks, batch_size=4, weights=weights)
    assert model.evaluate(batches, verbose=0) == pytest.approx(expected(1.0, 0.0), rel=1e-5)
    model.fit(batches, shuffle=False, verbose=0)
    derivative = [
        (expected(1 + 1e-5, 0.0) - expected(1 - 1e-5, 0.0)) / 2e-5,
        (expected(1.0, 1e-5) - expected(1.0, -1e-5)) / 2e-5,
    ]
    kernel, bias = (float(w.ravel()[0]) for w in model.get_weights())
    assert (kernel, bias) == pytest.approx((1 - 0.5 * derivative[0], -0.5 * derivative[1]), rel=1e-4)


def test_the_positive_weight_is_rest_over_landslide():
    masks = np.zeros((2, 4, 4), np.uint8)
    masks[0, :2, :2] = 1
    assert positive_weight(masks) == 28 / 4 == positive_weight(masks[..., None])
    assert isinstance(json.loads(json.dumps(positive_weight(masks))), float)
    assert positive_weight(np.ones((1, 2, 2), np.uint8)) == 0


def test_masks_without_landslide_have_no_positive_weight():
    with pytest.raises(InputError, match=r"None of the 1,024 pixels"):
        positive_weight(np.zeros((4, 16, 16), np.uint8))
