"""Compare recipes on held-out tiles, over several seeds, with a paired interval.

    python tests/benchmarks/compare_recipes.py --runs runs fast_0+fast_1:flips@256 unet_0+unet_1:identity

Each argument names runs that differ in their seed only, and a set of TTA views. Their out-of-fold predictions
(isolated: windows see what the same fold held out) become masks at threshold 0.5. The counts of all seeds are added up
tile by tile, and each recipe is compared with the last one, paired block by block. Predictions that are not cached are
computed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from marsls_keras.counts import Counts, confusion
from marsls_keras.intervals import difference_interval
from marsls_keras.runs.opened import open_runs
from marsls_keras.tuning.out_of_fold import collect, pool_tiles
from marsls_keras.view_sets import views_of


def count(names: list[str], view_set: str, runs: Path) -> tuple[list[Counts], Counts, np.ndarray]:
    """Return counts per tile of each seed, those of the mean of all seeds, and the block of each tile."""
    opened, _ = open_runs(names, runs, None)
    found = collect(opened, pool_tiles(opened[0]), views_of(view_set), isolated=True)
    each = [found.probability(view_set, {other: float(other == name) for other in names}) for name in names]
    masks = found.tiles.masks
    counts = [confusion(masks, probability >= 0.5, axis=(1, 2)) for probability in each]
    return counts, confusion(masks, np.mean(each, axis=0) >= 0.5, axis=(1, 2)), found.blocks


def summed(counts: list[Counts]) -> Counts:
    """Return the sum of counts per tile."""
    return Counts(*(sum(np.asarray(getattr(c, field)) for c in counts) for field in ("tp", "fp", "fn", "tn")))


def main() -> None:
    """Print a line for each recipe: mIoU of all seeds, each, and their mean; difference to the last recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("recipes", nargs="+", metavar="RUN+RUN:VIEWS")
    arguments = parser.parse_args()
    rows = []
    for recipe in arguments.recipes:
        names, _, view_set = recipe.partition(":")
        rows.append((recipe, *count(names.split("+"), view_set or "identity", arguments.runs)))
    *_, last = rows
    for recipe, seeds, mean, blocks in rows:
        pooled, base = summed(seeds), summed(last[1])
        miou = pooled.pooled().scores()["miou"]
        each = ", ".join(f"{c.pooled().scores()['miou']:.4f}" for c in seeds)
        line = f"{recipe}: mIoU {miou:.4f}; seeds {each}"
        # As many copies as there are seeds, so that both sides of the pair weigh alike.
        ensemble = summed([mean] * len(seeds))
        line += f"; their mean {mean.pooled().scores()['miou']:.4f} ({_difference(ensemble, pooled, blocks)} over one)"
        print(line if recipe == last[0] else f"{line}; over {last[0]}: {_difference(pooled, base, blocks)}")


def _difference(after: Counts, before: Counts, blocks: np.ndarray) -> str:
    gain = after.pooled().scores()["miou"] - before.pooled().scores()["miou"]
    interval = difference_interval(after, before, blocks)
    return f"{gain:+.4f}" if interval is None else f"{gain:+.4f}, {interval[0]:+.4f} to {interval[1]:+.4f}"


if __name__ == "__main__":
    main()
