"""95 % intervals of pooled scores, by the delete-one-block jackknife.

Neighbouring tiles are correlated, so tiles are not independent samples; blocks nearly are. Percentile intervals of a
bootstrap over blocks are too narrow for few blocks or blocks of unequal content (five blocks: about 83 % coverage
instead of 95 %). The jackknife with quantiles of Student's t keeps its nominal coverage (tests/test_intervals.py). Its
degrees of freedom follow from the effective number of blocks. The interval of a score is symmetric in the logit, so
that it stays within [0, 1].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit, logit, stdtrit

from marsls_keras.counts import Counts


def score_interval(counts: Counts, blocks: np.ndarray, score: str = "miou") -> tuple[float, float] | None:
    """Return the 95 % interval of a pooled score from counts per tile, within [0, 1]; None with fewer than two blocks.

    Args:
        counts: Counts per tile; each field (N,).
        blocks: Block label of each tile, (N,).
        score: Name of a score in `marsls_keras.counts.SCORES`.

    Example:
        >>> tp, fp, fn, tn = np.array([[30, 25, 40, 20], [5, 6, 4, 8], [5, 9, 3, 7], [60, 60, 53, 65]])
        >>> counts = Counts(tp, fp, fn, tn)
        >>> low, high = score_interval(counts, np.array(["a", "a", "b", "c"]))
        >>> low < counts.pooled().scores()["miou"] < high
        True
        >>> score_interval(counts, np.array(["a", "a", "a", "a"])) is None  # one block
        True
    """
    if (found := score_band(per_block(counts, blocks), score)) is None:
        return None
    return float(found[0]), float(found[1])


def score_band(counts: Counts, score: str = "miou") -> tuple[Any, Any] | None:
    """Return both ends of the 95 % interval of a pooled score from counts per block; None with fewer than two blocks.

    The ends have the shape (…) of the trailing axes, such as one interval per threshold.

    Args:
        counts: Counts per block; each field (blocks, …).
        score: Name of a score.

    Example:
        >>> per_block_counts = Counts(*(np.full((3, 4), value) for value in (30, 5, 5, 60)))
        >>> low, high = score_band(per_block_counts)
        >>> low.shape, bool(np.all(low == high))  # equal blocks
        ((4,), True)
    """
    if len(counts.tp) < 2:
        return None
    value, without = _leave_one_out(counts, score)
    error = _error(without - value) * _quantile(_content(counts))
    inner = np.clip(value, 1e-9, 1 - 1e-9)
    reach = error / (inner * (1 - inner))
    # If no block changes the score, the interval has width 0. The logit is infinite at scores of 0 and 1.
    low, high = (np.where(error > 0, expit(logit(inner) + sign * reach), value) for sign in (-1, 1))
    return low, high


def difference_interval(
    after: Counts, before: Counts, blocks: np.ndarray, score: str = "miou"
) -> tuple[float, float] | None:
    """Return the 95 % interval of a difference in a pooled score, paired by block; None with fewer than two blocks.

    Args:
        after: Counts per tile; each field (N,).
        before: Counts of the same tiles whose score is subtracted.
        blocks: Block label of each tile, (N,).
        score: Name of a score.

    Example:
        >>> tp, fp, fn, tn = np.array([[30, 25, 40], [5, 6, 4], [5, 9, 3], [60, 60, 53]])
        >>> before = Counts(tp, fp, fn, tn)
        >>> after = Counts(before.tp + 1, before.fp, before.fn - 1, before.tn)  # one pixel more is found in each tile
        >>> low, high = difference_interval(after, before, np.array([0, 1, 2]))
        >>> 0 < low < high
        True
    """
    one, other = per_block(after, blocks), per_block(before, blocks)
    if len(one.tp) < 2:
        return None
    (value, without), (base, base_without) = _leave_one_out(one, score), _leave_one_out(other, score)
    difference = value - base
    error = _error(without - base_without - difference) * _quantile(_content(one) + _content(other))
    return float(np.clip(difference - error, -1, 1)), float(np.clip(difference + error, -1, 1))


def region_spread(counts: Counts, regions: np.ndarray, score: str = "miou") -> dict[str, Any] | None:
    """Return a score for each region, with minimum, maximum and standard deviation; None with fewer than two regions.

    The spread over regions says more about the score in a new region than an interval does.

    Args:
        counts: Counts per tile; each field (N,).
        regions: Region of each tile, int (N,).
        score: Name of a score.

    Returns:
        "scores", the score by region; "min", "max" and "std" of these, the standard deviation with N - 1.

    Example:
        >>> counts = Counts(np.array([30, 10]), np.array([5, 5]), np.array([5, 20]), np.array([60, 65]))
        >>> spread = region_spread(counts, np.array([0, 1]), "recall")
        >>> {region: round(score, 3) for region, score in spread["scores"].items()}
        {'0': 0.857, '1': 0.333}
    """
    names = np.unique(regions).tolist()
    if len(names) < 2:
        return None
    values = np.asarray(per_block(counts, regions).scores()[score])
    scores = {str(name): float(value) for name, value in zip(names, values, strict=True)}
    return {"scores": scores, "min": float(values.min()), "max": float(values.max()), "std": float(values.std(ddof=1))}


def per_block(counts: Counts, blocks: np.ndarray) -> Counts:
    """Sum counts per tile to counts per block, in the sorted order of the labels; each field (blocks,).

    Example:
        >>> counts = Counts(*(np.array([1, 2, 4]) for _ in range(4)))
        >>> per_block(counts, np.array(["b", "a", "b"])).tp.tolist()
        [2.0, 5.0]
    """
    names, index = np.unique(np.asarray(blocks), return_inverse=True)
    return Counts(
        *(
            np.bincount(index, np.asarray(field, float), len(names))
            for field in (counts.tp, counts.fp, counts.fn, counts.tn)
        )
    )


def _leave_one_out(counts: Counts, score: str) -> tuple[Any, Any]:
    """Return the score over all blocks, (…), and the score without each block, (blocks, …)."""
    fields = [np.asarray(field, float) for field in (counts.tp, counts.fp, counts.fn, counts.tn)]
    total = [field.sum(axis=0) for field in fields]
    return Counts(*total).scores()[score], Counts(
        *(whole - field for whole, field in zip(total, fields, strict=True))
    ).scores()[score]


def _error(moved: np.ndarray) -> Any:
    """Return the jackknife standard error of a score.

    Args:
        moved: Change of the score when a block is left out, (blocks, …).
    """
    return np.sqrt((len(moved) - 1) / len(moved) * (moved**2).sum(axis=0))


def _content(counts: Counts) -> np.ndarray:
    """Return the number of true or predicted landslide pixels of each block, its weight in foreground scores."""
    return np.asarray(counts.tp + counts.fp + counts.fn, float)


def _quantile(content: np.ndarray) -> Any:
    """Return the 97.5 % quantile of Student's t, for the effective number of blocks.

    A few large blocks among many small ones count as few (Kish's effective sample size).

    Args:
        content: Content of each block, (blocks, …), from `_content`.
    """
    squares = (content**2).sum(axis=0)
    effective = np.where(squares > 0, content.sum(axis=0) ** 2 / np.where(squares > 0, squares, 1), len(content))
    return stdtrit(np.maximum(effective - 1, 1), 0.975)
