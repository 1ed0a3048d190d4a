"""Simulation of which gains are adopted, with known true gains: gains by noise on some tiles do not hold on others."""

import numpy as np
import pytest

from marsls_keras.counts import Counts
from marsls_keras.inference.decision_record import Gain
from marsls_keras.intervals import difference_interval

SMALL, LARGE = 15, 133  # blocks of up to four tiles: 60 tiles, and the 531 of the published region


def draw(rng: np.random.Generator, blocks: int, gain: float) -> tuple[Counts, Counts]:
    """Return counts of blocks before and after an element that corrects some errors and adds about as many others."""
    pixels = rng.integers(2, 5, blocks) * 128.0**2
    share = np.clip(0.2 * np.exp(rng.normal(0, 1, blocks) - 0.5), 0, 0.9) * (rng.random(blocks) > 0.1)
    tp, fp = pixels * share * rng.beta(12, 3, blocks), pixels * share * rng.beta(3, 12, blocks)
    before = Counts(tp, np.minimum(fp, pixels * (1 - share)), pixels * share - tp, pixels * (1 - share) - fp)
    # So unequal that the gain of 133 blocks is known to about 0.003, as that of the published tiles is.
    fn_mended, fp_mended = (
        field * np.clip(gain + rng.normal(0, 0.13, blocks), -0.9, 0.9) for field in (before.fn, before.fp)
    )
    return before, Counts(tp + fn_mended, before.fp - fp_mended, before.fn - fn_mended, before.tn + fp_mended)


def difference(before: Counts, after: Counts) -> float:
    return float(
        np.subtract(*(Counts(*map(np.sum, vars(counts).values())).scores()["miou"] for counts in (after, before)))
    )


def adopted(blocks: int, effect: float, worlds: int) -> dict[str, float]:
    """Return the true gain, and share and mean claimed gain of adoption by the rule and by any gain above 0."""
    rng = np.random.default_rng([blocks, int(effect * 1e4)])
    per_gain = difference(*draw(np.random.default_rng(0), 100_000, 0.1)) / 0.1
    gain = effect / per_gain
    found = []
    for _ in range(worlds):
        before, after = draw(rng, blocks, gain)
        claimed = difference(before, after)
        found.append(
            (claimed, Gain(miou=claimed, interval=list(difference_interval(after, before, np.arange(blocks)))).credible)
        )
    claims, kept = np.array(found).T
    return {
        "kept": kept.mean(),
        "claimed": claims[kept > 0].mean() if kept.any() else 0.0,
        "any": (claims > 0).mean(),
        "claimed_any": claims[claims > 0].mean(),
        "true": difference(*draw(np.random.default_rng(1), 100_000, gain)),
        "error": claims.std(),
    }


def test_noise_is_not_adopted():
    for blocks in (SMALL, LARGE):
        found = adopted(blocks, 0.0, 500)
        assert abs(found["true"]) < 5e-4
        assert (
            found["any"] > 0.4 and found["claimed_any"] > 0.5 * found["error"]
        )  # this is what any gain above 0 adopts
        assert found["kept"] < 0.05


def test_true_gains_are_adopted_and_their_claims_are_biased_upward():
    found = {effect: adopted(LARGE, effect, 300) for effect in (0.005, 0.01, 0.02)}
    assert found[0.005]["kept"] > 0.25 and found[0.01]["kept"] > 0.8 and found[0.02]["kept"] > 0.99
    for effect, of in found.items():
        assert of["true"] == pytest.approx(effect, abs=1.5e-3)
    assert found[0.005]["claimed"] > found[0.005]["true"] + 0.001  # as BIAS says
    few = adopted(SMALL, 0.02, 300)
    assert 0.3 < few["kept"] < 0.9 and few["claimed"] > few["true"]


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [5, SMALL, LARGE])
def test_many_worlds(blocks):
    for effect in (0.0, 0.005, 0.01, 0.02):
        found = adopted(blocks, effect, 5000)
        print(f"{blocks} blocks, effect {effect}: " + ", ".join(f"{key} {value:.4f}" for key, value in found.items()))
        assert found["kept"] < 0.035 or effect


def test_without_an_interval_nothing_is_credible():
    for interval, credible in ((None, False), ([0.0, 0.4], False), ([-0.1, 0.4], False), ([0.001, 0.4], True)):
        assert Gain(miou=0.2, interval=interval).credible is credible
