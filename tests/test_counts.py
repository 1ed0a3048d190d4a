"""Counts and scores against scikit-learn, direct thresholding and values by hand."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score, precision_score, recall_score

from marsls_keras.counts import (
    BINS,
    IMAGE_SCORES,
    SCORES,
    Counts,
    confusion,
    counts_at_thresholds,
    detection,
    histogram,
)


@pytest.mark.parametrize("share_true,share_predicted", [(0.5, 0.5), (0.03, 0.05), (0.9, 0.2)])
def test_scores_equal_scikit_learn(share_true, share_predicted):
    rng = np.random.default_rng(1)
    truth, prediction = rng.random((4, 9, 7)) < share_true, rng.random((4, 9, 7)) < share_predicted
    scores = confusion(truth, prediction).scores()
    t, p = truth.ravel(), prediction.ravel()
    iou_fg, iou_bg = jaccard_score(t, p), jaccard_score(~t, ~p)
    assert tuple(scores) == SCORES
    assert scores == pytest.approx(
        {
            "miou": (iou_fg + iou_bg) / 2,
            "iou_fg": iou_fg,
            "iou_bg": iou_bg,
            "f1": f1_score(t, p),
            "precision": precision_score(t, p),
            "recall": recall_score(t, p),
        },
        rel=1e-12,
    )


def test_a_detection_counts_tiles_with_any_landslide_and_scores_them_as_scikit_learn():
    rng = np.random.default_rng(11)
    masks = (rng.random((40, 5, 4)) < 0.04).astype(np.uint8)
    landslide = rng.random(40, dtype=np.float32)
    landslide[:2] = 0.5, np.nextafter(np.float32(0.5), np.float32(0))
    true, said = masks.reshape(40, -1).max(1) == 1, landslide >= 0.5
    found = detection(masks, landslide)
    tn, fp, fn, tp = confusion_matrix(true, said).ravel()
    assert found["counts"] == {"tp": tp, "fp": fp, "fn": fn, "tn": tn} and said[:2].tolist() == [True, False]
    assert tuple(found["scores"]) == IMAGE_SCORES
    expected = [score(true, said) for score in (f1_score, accuracy_score, precision_score, recall_score)]
    assert list(found["scores"].values()) == pytest.approx(expected, rel=1e-12)


def test_the_accuracy_of_several_counts_and_of_none():
    counts = Counts(*np.array([[3, 0], [1, 0], [0, 0], [4, 0]]))
    assert counts.image_scores()["accuracy"].tolist() == [7 / 8, 1]


def test_counts_equal_the_confusion_matrix_and_nonzero_is_landslide():
    rng = np.random.default_rng(2)
    truth, prediction = 255 * rng.integers(0, 2, (3, 8, 8)), rng.integers(0, 2, (3, 8, 8))
    counts = confusion(truth, prediction)
    tn, fp, fn, tp = confusion_matrix(truth.ravel() == 255, prediction.ravel() == 1).ravel()
    assert (counts.tp, counts.fp, counts.fn, counts.tn) == (tp, fp, fn, tn)
    assert all(type(field) is int for field in (counts.tp, counts.fp, counts.fn, counts.tn))


def test_scores_by_hand():
    scores = Counts(tp=2, fp=1, fn=3, tn=4).scores()
    expected = {
        "iou_fg": 2 / 6,
        "iou_bg": 4 / 8,
        "miou": (2 / 6 + 4 / 8) / 2,
        "f1": 4 / 8,
        "precision": 2 / 3,
        "recall": 2 / 5,
    }
    assert scores == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    "truth,prediction,expected",
    [
        # Nothing to find, nothing claimed: every score of the landslide class is 1.
        ([0, 0, 0, 0], [0, 0, 0, 0], dict(miou=1, iou_fg=1, iou_bg=1, f1=1, precision=1, recall=1)),
        # Nothing to find, one pixel claimed.
        ([0, 0, 0, 0], [1, 0, 0, 0], dict(miou=0.375, iou_fg=0, iou_bg=0.75, f1=0, precision=0, recall=0)),
        # One pixel to find, nothing claimed.
        ([1, 0, 0, 0], [0, 0, 0, 0], dict(miou=0.375, iou_fg=0, iou_bg=0.75, f1=0, precision=0, recall=0)),
        # All landslide and found: there is no background, in truth or claim.
        ([1, 1, 1, 1], [1, 1, 1, 1], dict(miou=1, iou_fg=1, iou_bg=1, f1=1, precision=1, recall=1)),
        ([1, 1, 1, 1], [0, 0, 0, 0], dict(miou=0, iou_fg=0, iou_bg=0, f1=0, precision=0, recall=0)),
        ([0, 0, 0, 0], [1, 1, 1, 1], dict(miou=0, iou_fg=0, iou_bg=0, f1=0, precision=0, recall=0)),
        ([1, 1, 1, 1], [1, 1, 1, 0], dict(miou=0.375, iou_fg=0.75, iou_bg=0, f1=6 / 7, precision=1, recall=0.75)),
    ],
)
def test_scores_of_empty_and_full_masks(truth, prediction, expected):
    assert confusion(np.array(truth), np.array(prediction)).scores() == pytest.approx(expected, rel=1e-15)


def test_pixels_of_weight_zero_are_left_out():
    rng = np.random.default_rng(3)
    truth, prediction, weight = (rng.integers(0, 2, (2, 6, 6)) for _ in range(3))
    kept = weight == 1
    assert confusion(truth, prediction, weight) == confusion(truth[kept], prediction[kept])
    assert confusion(truth, prediction, np.zeros_like(weight)) == Counts(0, 0, 0, 0)


def test_counts_per_tile_add_up_to_the_whole():
    rng = np.random.default_rng(4)
    truth, prediction = rng.integers(0, 2, (5, 6, 6)), rng.integers(0, 2, (5, 6, 6))
    tiles = confusion(truth, prediction, axis=(1, 2))
    each = [confusion(t, p) for t, p in zip(truth, prediction, strict=True)]
    assert tiles.tp.tolist() == [c.tp for c in each] and tiles.fn.tolist() == [c.fn for c in each]
    assert tiles.scores()["miou"] == pytest.approx([c.scores()["miou"] for c in each], rel=1e-15)
    assert tiles.pooled() == confusion(truth, prediction) == sum(each[1:], each[0])


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
        confusion(np.zeros((2, 3)), np.zeros((3, 2)))


def edge_probabilities() -> np.ndarray:
    """Every k / BINS as float32, its two float32 neighbours, 0, 1 and some random values."""
    edges = (np.arange(BINS + 1) / BINS).astype(np.float32)
    random = np.random.default_rng(5).random(3000, dtype=np.float32)
    near = [np.nextafter(edges[1:], np.float32(0)), np.nextafter(edges[:-1], np.float32(1))]
    return np.concatenate([edges, *near, random])


def test_counts_of_a_histogram_equal_direct_thresholding_at_every_threshold():
    probability = edge_probabilities()
    truth = np.random.default_rng(6).integers(0, 2, probability.size)
    counts = counts_at_thresholds(histogram(truth, probability))
    assert counts.tp.shape == (BINS,) and counts.tp.dtype == np.int64
    for k in range(BINS):
        assert Counts(counts.tp[k], counts.fp[k], counts.fn[k], counts.tn[k]) == confusion(
            truth, probability >= k / BINS
        ), k


def test_histogram_bins_by_hand():
    hist = histogram(np.array([0, 0, 1, 1, 1]), np.array([0.0, 0.0004, 0.0015, 0.9995, 1.0], np.float32))
    expected = np.zeros((2, BINS), int)
    expected[0, 0], expected[1, 1], expected[1, BINS - 1] = 2, 1, 2
    assert hist.dtype == np.int64 and np.array_equal(hist, expected)


def test_histograms_of_parts_add_up_and_weights_leave_out():
    rng = np.random.default_rng(7)
    truth, probability, weight = (
        rng.integers(0, 2, (4, 8, 8)),
        rng.random((4, 8, 8), dtype=np.float32),
        rng.integers(0, 2, (4, 8, 8)),
    )
    whole = histogram(truth, probability)
    assert np.array_equal(whole, histogram(truth[:1], probability[:1]) + histogram(truth[1:], probability[1:]))
    kept = weight == 1
    assert np.array_equal(histogram(truth, probability, weight), histogram(truth[kept], probability[kept]))
    assert histogram(truth[:0], probability[:0]).sum() == 0


def test_counts_at_thresholds_of_stacked_histograms():
    rng = np.random.default_rng(8)
    hists = rng.integers(0, 5, (3, 2, BINS))
    stacked = counts_at_thresholds(hists)
    for i in range(3):
        one = counts_at_thresholds(hists[i])
        for field in ("tp", "fp", "fn", "tn"):
            assert np.array_equal(getattr(stacked, field)[i], getattr(one, field))
