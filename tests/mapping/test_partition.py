"""The paper's partition: blocks stay together, splits have their shares and like amounts of landslide."""

import numpy as np
import pytest

from marsls_keras.errors import InputError
from marsls_keras.mapping.partition import SHARES, distribution, partition, plot_histogram


def region(rows=40, columns=44, seed=0):
    """Cells of a region with landslide in patches, their ratios, and their blocks of 2 x 2."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.beta(0.6, 1.2, (rows // 4, columns // 4)), np.ones((4, 4)))
    ratios = np.clip(coarse + 0.05 * rng.standard_normal((rows, columns)), 0, 1).ravel()
    blocks = [(row // 2, column // 2) for row in range(rows) for column in range(columns)]
    return ratios, blocks


@pytest.mark.parametrize("shares", [SHARES, {"train": 0.8, "val": 0.2, "test": 0.0}, {"train": 1.0}])
def test_shares_are_met_to_a_block_and_blocks_stay_together(shares):
    ratios, blocks = region()
    splits = partition(ratios, blocks, shares, seed=3)
    for split, share in shares.items():
        assert abs(splits.count(split) - share * len(ratios)) <= 4
    of_block = {}
    for block, split in zip(blocks, splits, strict=True):
        assert of_block.setdefault(block, split) == split


def test_splits_have_like_amounts_of_landslide():
    """More alike than blocks drawn at random: on average over seeds, and in every quantile bin."""
    ratios, blocks = region()
    names = sorted(set(blocks))
    member = np.array([names.index(block) for block in blocks])
    mean = np.bincount(member, ratios) / 4
    bins = np.digitize(mean, np.quantile(mean, [0.2, 0.4, 0.6, 0.8]))
    spread, random = [], []
    for seed in range(8):
        splits = np.array(partition(ratios, blocks, seed=seed))
        spread.append(np.ptp([ratios[splits == split].mean() for split in SHARES]))
        for one in range(5):
            for split, share in SHARES.items():
                chosen = (splits == split) & (bins[member] == one)
                assert abs(chosen.sum() - share * (bins[member] == one).sum()) <= 8
        drawn = np.random.default_rng(seed).choice(list(SHARES), len(names), p=list(SHARES.values()))[member]
        random.append(np.ptp([ratios[drawn == split].mean() for split in SHARES]))
    assert np.mean(spread) < 0.5 * np.mean(random)


def test_equal_seeds_give_equal_splits_and_others_do_not():
    ratios, blocks = region()
    first = partition(ratios, blocks, seed=1)
    assert first == partition(ratios, blocks, seed=1) != partition(ratios, blocks, seed=2)


def test_every_split_gets_a_block_however_few_there_are():
    ratios, blocks = [0.5] * 9, ["a"] * 4 + ["b"] * 4 + ["c"]
    for seed in range(6):
        assert set(partition(ratios, blocks, seed=seed)) == set(SHARES)
    with pytest.raises(InputError, match=r"8 tiles in 2 block\(s\) cannot be divided into train, val, test"):
        partition(ratios[:8], blocks[:8])


def test_few_blocks_of_unequal_size_are_shared_out_as_well_as_they_can_be():
    """The corner of a region is a block of nine, where tiles overlap."""
    rng = np.random.default_rng(0)
    sizes = [4, 4, 3, 4, 2, 6, 1, 9]
    blocks = [name for name, size in enumerate(sizes) for _ in range(size)]
    for seed in range(5):
        splits = partition(rng.random(len(blocks)), blocks, seed=seed)
        assert all(abs(splits.count(split) - share * len(blocks)) <= 3 for split, share in SHARES.items())


def test_the_table_is_that_of_the_ratios():
    ratios = np.random.default_rng(0).random(50)
    found = distribution({"train": ratios[:40], "test": ratios[40:]})
    assert found["train"] == {
        "images": 40,
        "avg": round(100 * float(np.mean(ratios[:40])), 4),
        "std": round(100 * float(np.std(ratios[:40])), 4),
        "min": round(100 * float(min(ratios[:40])), 4),
        "max": round(100 * float(max(ratios[:40])), 4),
    }
    assert list(found) == ["train", "test"] and found["test"]["images"] == 10


def test_the_histogram_is_a_picture_of_the_shares(tmp_path):
    plot_histogram({"train": [0.05, 0.05, 0.95, 1.0], "test": [0.5]}, tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text()
    assert text.startswith("<?xml") and text.count("<path") > 20
