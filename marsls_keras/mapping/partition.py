"""Divide the tiles of a region into splits as MMLSv2 was: spatial blocks, stratified by their share of landslide.

Paheding et al., "MMLSv2: a multimodal dataset for Martian landslide detection in remote sensing imagery", 2026, section
2.4, Table 1 and Figure 2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np

from marsls_keras.errors import InputError
from marsls_keras.files import atomic

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
"""Shares of the tiles of MMLSv2: 465, 66 and 133 of 664."""

_BINS = 5  # quantile bins of the blocks' mean foreground ratio
_ORDERS = 50  # random orders that are tried at most
_INK = {"train": "#1f4e79", "val": "#e08a1e", "test": "#5a9367", "isolated": "#8c8c8c"}
_STEP = 0.1  # width of an interval of the histogram


def partition(
    ratios: Sequence[float], blocks: Sequence[Hashable], shares: Mapping[str, float] = SHARES, seed: int = 0
) -> list[str]:
    """Assign tiles to splits; tiles of a block stay together.

    The mean foreground ratio of each block decides its quantile bin. Blocks are taken bin by bin in random order, and
    each goes to the split that lacks most tiles of its share of those so far, so that every split has its share of
    every bin and, to about a block, of all tiles. With few blocks several orders are tried, and the one is taken that
    misses the shares least.

    Args:
        ratios: Share of landslide pixels of each tile.
        blocks: Block of each tile.
        shares: Share of each split; they add up to 1, and those of 0 get no tile.
        seed: Random seed.

    Returns:
        The split of each tile.

    Raises:
        InputError: If there are too few blocks for each split to get one.

    Example:
        >>> partition([0.1, 0.1, 0.5], ["a", "a", "b"], {"train": 0.6, "test": 0.4})
        ['train', 'train', 'test']
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i, name in enumerate(blocks):
        members[name].append(i)
    names, wanted = list(members), {split: share for split, share in shares.items() if share > 0}
    if len(names) < len(wanted):
        raise InputError(
            f"{len(ratios)} tiles in {len(names)} block(s) cannot be divided into {', '.join(wanted)}. "
            "Take a larger region, smaller tiles, or fewer splits."
        )
    mean = np.array([np.mean([ratios[i] for i in members[name]]) for name in names])
    bins = np.digitize(mean, np.quantile(mean, np.linspace(0, 1, _BINS + 1)[1:-1]))
    sizes = [len(members[name]) for name in names]
    rng, best, splits = np.random.default_rng(seed), np.inf, [""] * len(names)
    for _ in range(_ORDERS):
        order = rng.permutation(len(names))
        tried, off = _dealt(order[np.argsort(bins[order], kind="stable")], sizes, wanted)
        if off < best:
            best, splits = off, tried
        if best <= max(sizes) / 4:
            break
    of_block = dict(zip(names, splits, strict=True))
    return [of_block[name] for name in blocks]


def _dealt(order: np.ndarray, sizes: Sequence[int], shares: Mapping[str, float]) -> tuple[list[str], float]:
    """Give blocks to splits in an order; return each block's split, and by how many tiles the worst share is missed."""
    given, seen, splits = dict.fromkeys(shares, 0), 0, [""] * len(sizes)
    for done, block in enumerate(order):
        seen += sizes[block]
        empty = [split for split in shares if not given[split]]
        # The last blocks go to the splits that have none.
        open_to = empty if len(sizes) - done <= len(empty) else shares
        chosen = max(open_to, key=lambda split: shares[split] * seen - given[split])
        splits[block] = chosen
        given[chosen] += sizes[block]
    return splits, max(abs(share * seen - given[split]) for split, share in shares.items())


def distribution(ratios: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Return the distribution of foreground ratios of each split, the columns of the paper's Table 1.

    Args:
        ratios: Share of landslide pixels of the tiles of each split.

    Returns:
        By split: "images", and "avg", "std", "min" and "max" of the foreground ratio in percent.

    Example:
        >>> distribution({"train": [0.1, 0.3]})["train"]
        {'images': 2, 'avg': 20.0, 'std': 10.0, 'min': 10.0, 'max': 30.0}
    """
    found = {}
    for split, values in ratios.items():
        percent = 100 * np.asarray(values, np.float64)
        numbers = {"avg": percent.mean(), "std": percent.std(), "min": percent.min(), "max": percent.max()}
        found[split] = {"images": len(percent), **{key: round(float(value), 4) for key, value in numbers.items()}}
    return found


def plot_histogram(ratios: Mapping[str, Sequence[float]], path: Path) -> None:
    """Plot the share of the tiles of each split in intervals of the foreground ratio, as the paper's Figure 2.

    Args:
        ratios: Share of landslide pixels of the tiles of each split.
        path: File to write, ending in .png or .svg.

    Raises:
        RunError: If it cannot be written.

    Example:
        >>> plot_histogram({"train": [0.1, 0.3], "test": [0.2]}, Path("foreground.svg"))
        >>> Path("foreground.svg").exists()
        True
    """
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    edges = np.arange(0, 1 + _STEP / 2, _STEP)
    wide = 0.8 / len(ratios)
    for i, (split, values) in enumerate(ratios.items()):
        counts, _ = np.histogram(values, edges)
        place = np.arange(len(counts)) + (i - (len(ratios) - 1) / 2) * wide
        axes.bar(place, 100 * counts / max(counts.sum(), 1), wide, color=_INK.get(split), label=split)
    axes.set_xticks(range(len(edges) - 1), [f"{100 * low:.0f}–{100 * (low + _STEP):.0f}" for low in edges[:-1]])
    axes.set_xlabel("landslide pixels of a tile in %")
    axes.set_ylabel("tiles of the split in %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with atomic(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower()[1:], dpi=150)
