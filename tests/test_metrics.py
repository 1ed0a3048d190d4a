"""The counting metric against the NumPy counts."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from marsls_keras.counts import Counts, confusion
from marsls_keras.data.pipeline.batches import evaluation_batches
from marsls_keras.metrics import SegmentationCounts


def batches(seed: int = 0):
    """Return three batches of different sizes and shares of landslide: masks, logits, weights."""
    rng = np.random.default_rng(seed)
    for number, share in ((4, 0.5), (2, 0.02), (1, 0.9)):
        shape = (number, 8, 8, 1)
        truth = (rng.random(shape) < share).astype(np.float32)
        yield (
            truth,
            (rng.normal(0, 2, shape) + 2 * truth - 1).astype(np.float32),
            rng.integers(0, 2, shape).astype(np.float32),
        )


def sigmoid(logits):
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def pooled(threshold: float = 0.5, weighted: bool = False) -> Counts:
    parts = list(batches())
    truth, logits, weight = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return confusion(truth, sigmoid(logits) >= threshold, weight if weighted else None)


def test_counts_are_pooled_over_batches_not_averaged():
    metric = SegmentationCounts()
    single = []
    for truth, logits, _ in batches():
        metric.update_state(truth, logits)
        single.append(confusion(truth, logits >= 0).scores()["miou"])
    assert metric.counts() == pooled()
    assert float(metric.result()) == pytest.approx(pooled().scores()["miou"], rel=1e-6)
    assert abs(np.mean(single) - pooled().scores()["miou"]) > 0.02


@pytest.mark.parametrize("threshold", [0.05, 0.4, 0.731, 0.99])
def test_other_thresholds_and_weights(threshold):
    metric, weighted = SegmentationCounts(threshold), SegmentationCounts(threshold)
    for truth, logits, weight in batches():
        metric.update_state(truth, logits)
        weighted.update_state(truth, logits, sample_weight=weight)
    assert metric.counts() == pooled(threshold)
    assert weighted.counts() == pooled(threshold, weighted=True)
    assert metric.counts() != pooled()


def test_a_probability_of_exactly_the_threshold_is_landslide():
    metric = SegmentationCounts()
    metric.update_state(
        np.array([1, 1, 0, 0]).reshape(1, 2, 2, 1), np.array([0.0, -1e-30, 0.0, -1.0]).reshape(1, 2, 2, 1)
    )
    assert metric.counts() == Counts(tp=1, fp=1, fn=1, tn=1)


@pytest.mark.parametrize("truth,logit", [(0, -1), (0, 1), (1, 1), (1, -1)])
def test_empty_and_full_masks_follow_the_counts(truth, logit):
    metric = SegmentationCounts()
    metric.update_state(np.full((1, 2, 2, 1), truth), np.full((1, 2, 2, 1), logit))
    assert float(metric.result()) == metric.counts().scores()["miou"] == (1.0 if truth == (logit > 0) else 0.0)


def test_reset_starts_from_zero():
    metric = SegmentationCounts()
    assert float(metric.result()) == 1.0  # nothing was seen, nothing was wrong
    parts = list(batches())
    metric.update_state(*parts[0][:2])
    metric.reset_state()
    assert metric.counts() == Counts(0, 0, 0, 0)
    metric.update_state(*parts[1][:2])
    assert metric.counts() == confusion(parts[1][0], parts[1][1] >= 0)


def test_counts_stay_exact_beyond_the_integers_of_float32():
    metric = SegmentationCounts()
    metric.cells.assign([2**24, 0, 0, 0])
    metric.update_state(np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1)))
    assert metric.counts().tp == 2**24 + 1


def test_the_counts_compile_with_xla_and_lie_where_xla_finds_them():
    # TensorFlow keeps int32 variables on the CPU, where an XLA step on a GPU cannot reach them (keras issue 20250); the
    # optimiser's step counter has the integer type that works.
    metric = SegmentationCounts()
    optimizer = keras.optimizers.SGD()
    assert metric.cells.dtype == optimizer.iterations.dtype
    assert keras.backend.backend() != "tensorflow" or metric.cells.dtype == "int64"
    update = tf.function(metric.update_state, jit_compile=True)
    for truth, logits, weight in batches():
        update(tf.constant(truth), tf.constant(logits), tf.constant(weight))
    assert metric.counts() == pooled(weighted=True)


def test_round_trip_through_the_configuration():
    metric = SegmentationCounts(threshold=0.3, name="other")
    saved = keras.metrics.serialize(metric)
    again = keras.metrics.deserialize(saved, custom_objects={"SegmentationCounts": SegmentationCounts})
    assert (again.threshold, again.name) == (0.3, "other") and again.get_config() == metric.get_config()
    for truth, logits, _ in batches():
        again.update_state(truth, logits)
    assert again.counts() == pooled(0.3)


@pytest.mark.parametrize("threshold", [0, 1, -0.5, 1.5, float("nan")])
def test_a_threshold_outside_the_open_interval_is_refused(threshold):
    with pytest.raises(ValueError, match="Received"):
        SegmentationCounts(threshold)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_evaluate_counts_real_tiles_only(policy):
    rng = np.random.default_rng(3)
    images, masks = rng.normal(0, 1, (5, 8, 8, 1)).astype(np.float32), rng.integers(0, 2, (5, 8, 8)).astype(np.uint8)
    weights = rng.integers(0, 2, masks.shape).astype(np.float32)
    inputs = keras.Input((None, None, 1))
    metric = SegmentationCounts(0.6)
    model = keras.Model(inputs, keras.layers.Identity(dtype=policy)(inputs))
    model.compile(loss="mse", weighted_metrics=[metric], jit_compile=False)
    logits = tf.cast(images, "bfloat16" if policy == "mixed_bfloat16" else "float32")
    prediction = sigmoid(tf.cast(logits, tf.float64).numpy()[..., 0]) >= 0.6
    # Batches of four: the second one holds one tile and three of padding. Twice, since evaluate starts from zero.
    for _ in range(2):
        result = model.evaluate(evaluation_batches(images, masks, batch_size=4), verbose=0, return_dict=True)
        assert metric.counts() == confusion(masks, prediction)
        assert result["miou"] == pytest.approx(confusion(masks, prediction).scores()["miou"], rel=1e-6)
    model.evaluate(evaluation_batches(images, masks, batch_size=4, weights=weights), verbose=0)
    assert metric.counts() == confusion(masks, prediction, weights)
