"""Intervals against values by hand, and their coverage where the truth is known."""

import numpy as np
import pytest
from scipy.stats import t as student

from marsls_keras.counts import Counts, counts_at_thresholds, histogram
from marsls_keras.intervals import difference_interval, per_block, region_spread, score_band, score_interval
from marsls_keras.report.run_summary import threshold_band

TERRAINS = {
    # Spread of landslide per block (of its logarithm), tiles of a block at most, quality, how alike blocks are, blocks
    # without landslide.
    "even": (0.4, 6, 0.78, 12, 0.0),
    "good": (1.0, 4, 0.93, 20, 0.0),
    "heavy tails": (1.0, 4, 0.78, 6, 0.1),
    "heavier": (1.3, 8, 0.78, 3, 0.1),
}


def draw(rng: np.random.Generator, shape: tuple[int, ...], terrain: str) -> np.ndarray:
    """Return counts (tp, fp, fn, tn) of blocks of a terrain, float (4, *shape)."""
    spread, most, quality, alike, empty = TERRAINS[terrain]
    pixels = rng.integers(1, most + 1, shape) * 1024.0
    share = np.clip(0.25 * np.exp(spread * rng.normal(size=shape) - spread**2 / 2), 0, 0.95) * (
        rng.random(shape) >= empty
    )
    recall, precision = (rng.beta(quality * alike, (1 - quality) * alike, shape) for _ in range(2))
    tp = pixels * share * recall
    fp = np.minimum(
        tp * (1 - precision) / np.maximum(precision, 0.05) + 0.01 * pixels * rng.random(shape), pixels * (1 - share)
    )
    return np.stack([tp, fp, pixels * share - tp, pixels * (1 - share) - fp])


def bootstrap_percentiles(fields: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return bootstrap percentiles of the mIoU over resampled blocks; fields (4, blocks, worlds)."""
    number = fields.shape[1]
    draws = rng.multinomial(number, np.full(number, 1 / number), size=400).astype(float)
    values = Counts(*(draws @ field for field in fields)).scores()["miou"]
    return tuple(np.percentile(values, [2.5, 97.5], axis=0))


def coverage(terrain: str, number: int, worlds: int) -> tuple[float, float]:
    """Return how often the interval, and that of the bootstrap, contains the mIoU of infinitely many blocks."""
    truth = Counts(*draw(np.random.default_rng(0), (200_000,), terrain).sum(1)).scores()["miou"]
    rng = np.random.default_rng(number)
    fields = draw(rng, (number, worlds), terrain)
    found = []
    for low, high in (score_band(Counts(*fields)), bootstrap_percentiles(fields[:, :, :1000], rng)):
        assert (low >= 0).all() and (high <= 1).all()
        found.append(float(((low <= truth) & (truth <= high)).mean()))
    return found[0], found[1]


@pytest.mark.parametrize("terrain", TERRAINS)
@pytest.mark.parametrize("number", [5, 10])
def test_the_interval_holds_the_truth_as_often_as_it_says(terrain, number):
    held, before = coverage(terrain, number, 1500)
    assert held >= 0.93
    assert before < 0.92  # or the simulation would prove nothing


@pytest.mark.slow
@pytest.mark.parametrize("terrain", TERRAINS)
@pytest.mark.parametrize("number", [2, 3, 5, 10, 20, 60, 133])
def test_coverage_of_many_worlds(terrain, number):
    held, before = coverage(terrain, number, 20_000)
    print(f"{terrain}, {number} blocks: {held:.3f}, bootstrap {before:.3f}")
    assert held >= 0.935


@pytest.mark.parametrize("number", [5, 10, 60])
def test_a_paired_interval_holds_the_true_difference(number):
    """Masks that differ by noise; and masks improved by very unequal amounts, with slightly low intervals."""
    blocks, worlds = np.arange(number), 500
    for mend in (False, True):

        def changed(fields: np.ndarray, rng: np.random.Generator, mend: bool = mend) -> Counts:
            fp, fn = (
                field * (0.15 * rng.beta(1, 3, field.shape) if mend else rng.normal(0, 0.1, field.shape))
                for field in fields[1:3]
            )
            return Counts(fields[0] + fn, fields[1] - fp, fields[2] - fn, fields[3] + fp)

        rng = np.random.default_rng(number)
        many = draw(np.random.default_rng(0), (200_000,), "heavy tails")
        truth = changed(many, rng).pooled().scores()["miou"] - Counts(*many).pooled().scores()["miou"]
        fields = draw(rng, (number, worlds), "heavy tails")
        after = changed(fields, rng)
        ends = [
            difference_interval(
                Counts(after.tp[:, i], after.fp[:, i], after.fn[:, i], after.tn[:, i]), Counts(*fields[..., i]), blocks
            )
            for i in range(worlds)
        ]
        low, high = np.array(ends).T
        assert np.mean(truth < low) <= 0.03  # no more is claimed than is true
        assert np.mean((low <= truth) & (truth <= high)) >= (0.88 if mend else 0.93)


def tiles_in_blocks(blocks: int = 12, tiles: int = 6) -> tuple[Counts, np.ndarray]:
    """Return counts of tiles that have the quality of their block."""
    quality = np.repeat(np.random.default_rng(9).uniform(0.2, 0.95, blocks), tiles)
    tp = np.round(400 * quality).astype(int)
    return Counts(tp, np.full_like(tp, 100), 400 - tp, np.full_like(tp, 1000)), np.repeat(np.arange(blocks), tiles)


def test_by_hand():
    """Three blocks of nearly equal content and recalls 0.5, 0.6 and 0.7: about two degrees of freedom."""
    counts = Counts(np.array([50, 60, 70]), np.zeros(3), np.array([50, 40, 30]), np.full(3, 100))
    low, high = score_interval(counts, np.array(["a", "b", "c"]), "recall")
    error = student.ppf(0.975, 2) * np.sqrt(2 / 3 * (0.05**2 + 0.05**2))  # without one of them 0.65, 0.6 and 0.55
    odds = np.exp(error / (0.6 * 0.4))
    assert (low, high) == pytest.approx((1.5 / odds / (1 + 1.5 / odds), 1.5 * odds / (1 + 1.5 * odds)), rel=1e-12)


def test_blocks_of_several_tiles_count_as_one():
    counts, blocks = tiles_in_blocks()
    low, high = score_interval(counts, blocks)
    pooled = per_block(counts, blocks)
    assert (low, high) == score_interval(pooled, np.arange(12)) and pooled.tp[3] == counts.tp[blocks == 3].sum()
    assert low < counts.pooled().scores()["miou"] < high
    low_tiles, high_tiles = score_interval(counts, np.arange(len(blocks)))
    # Six equal tiles are worth one: about sqrt(6) = 2.4 times as wide.
    assert 1.8 < (high - low) / (high_tiles - low_tiles) < 3.2
    order = np.random.default_rng(0).permutation(len(blocks))
    shuffled = Counts(*(field[order] for field in (counts.tp, counts.fp, counts.fn, counts.tn)))
    assert score_interval(shuffled, blocks[order]) == pytest.approx((low, high))


def test_one_block_or_none_has_no_interval():
    counts, blocks = tiles_in_blocks()
    one, none = np.zeros(len(blocks), int), np.zeros(0, int)
    assert score_interval(counts, one, "f1") is None and difference_interval(counts, counts, one) is None
    assert region_spread(counts, one) is None and score_interval(Counts(none, none, none, none), none) is None
    assert threshold_band(np.zeros((0, 2, 1), np.int64)) is None


def test_ends_stay_within_the_scale():
    empty = Counts(np.array([0, 0, 5]), np.zeros(3), np.array([0, 0, 0]), np.full(3, 50))
    assert score_interval(empty, np.arange(3)) == (1, 1)  # nothing that could move it
    one = Counts(np.array([0, 0, 500]), np.array([0, 0, 1]), np.array([0, 1, 0]), np.full(3, 50))
    low, high = score_interval(one, np.arange(3))
    assert 0 <= low < 0.1 and 0.9 < high <= 1  # all landslide of one block: this is not known at all
    wrong = Counts(np.zeros(3), np.array([3, 4, 5]), np.array([3, 4, 5]), np.full(3, 50))
    assert score_interval(wrong, np.arange(3), "iou_fg") == (0, 0)


def test_differences_are_paired():
    counts, blocks = tiles_in_blocks()
    better = Counts(counts.tp + 10, counts.fp, counts.fn - 10, counts.tn)  # recall rises by 10 / 400 in every block
    assert difference_interval(better, counts, blocks, "recall") == pytest.approx((0.025, 0.025), abs=1e-12)
    assert difference_interval(counts, counts, blocks) == (0, 0)
    low, high = difference_interval(better, counts, blocks)
    turned = difference_interval(counts, better, blocks)
    assert low > 0 and (low, high) == pytest.approx((-turned[1], -turned[0]))


def test_regions():
    counts = Counts(np.array([1, 1, 6]), np.array([1, 1, 2]), np.array([2, 2, 0]), np.array([10, 10, 30]))
    found = region_spread(counts, np.array([2, 2, 0]), "iou_fg")
    assert found == {"scores": {"0": 0.75, "2": 0.25}, "min": 0.25, "max": 0.75, "std": pytest.approx(0.5 / np.sqrt(2))}


def test_a_band_is_the_interval_at_every_threshold():
    rng = np.random.default_rng(0)
    truth, probability = rng.integers(0, 2, (6, 20)), rng.random((6, 20), np.float32)
    histograms = np.stack([histogram(t, p) for t, p in zip(truth, probability, strict=True)])
    low, high = threshold_band(histograms)
    for k in (150, 500, 720):
        one = counts_at_thresholds(histograms)
        at = Counts(one.tp[:, k], one.fp[:, k], one.fn[:, k], one.tn[:, k])
        assert (low[k], high[k]) == pytest.approx(score_interval(at, np.arange(6)), abs=1e-12)
