"""How sure a pooled score is, from how it moves when one block of tiles is left out.

Neighbouring tiles are alike, so tiles are not independent draws; blocks nearly are. Percentiles of resampled blocks are too narrow for few
blocks, or for blocks of unequal content (five blocks: about 83 % where 95 % is claimed). The delete-one-block jackknife with quantiles of
Student's t holds what it claims (tests/test_intervals.py): its degrees of freedom are those of the blocks that count, and a score's
interval is symmetric in the logit, so that it stays within [0, 1].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit, logit, stdtrit

from marsls_keras.counts import Counts


def score_interval(counts: Counts, blocks: np.ndarray, score: str = "miou") -> tuple[float, float] | None:
    """Return the 95 % interval of a pooled score, within [0, 1]; None with fewer than two blocks, which say nothing of others.

    Args:
        counts: Counts per tile; each field (N,).
        blocks: Block label of each tile, (N,).
        score: Name of a score in `marsls_keras.counts.SCORES`.
    """
    if (found := score_band(per_block(counts, blocks), score)) is None:
        return None
    return float(found[0]), float(found[1])


def score_band(counts: Counts, score: str = "miou") -> tuple[Any, Any] | None:
    """Return the ends of the 95 % interval of a score pooled over blocks, each of shape (…); None with fewer than two blocks.

    Args:
        counts: Counts per block; each field (blocks, …).
        score: Name of a score.
    """
    if len(counts.tp) < 2:
        return None
    value, without = _leave_one_out(counts, score)
    error = _error(without - value) * _quantile(_content(counts))
    inner = np.clip(value, 1e-9, 1 - 1e-9)
    reach = error / (inner * (1 - inner))
    # A score that no block changes has no width; in the logit, 0 and 1 are out of reach.
    low, high = (np.where(error > 0, expit(logit(inner) + sign * reach), value) for sign in (-1, 1))
    return low, high


def difference_interval(after: Counts, before: Counts, blocks: np.ndarray, score: str = "miou") -> tuple[float, float] | None:
    """Return the 95 % interval of a difference in a pooled score, paired block by block; None with fewer than two blocks.

    Args:
        after: Counts per tile; each field (N,).
        before: Counts of the same tiles, of what is subtracted.
        blocks: Block label of each tile, (N,).
        score: Name of a score.
    """
    one, other = per_block(after, blocks), per_block(before, blocks)
    if len(one.tp) < 2:
        return None
    (value, without), (base, base_without) = _leave_one_out(one, score), _leave_one_out(other, score)
    difference = value - base
    error = _error(without - base_without - difference) * _quantile(_content(one) + _content(other))
    return float(np.clip(difference - error, -1, 1)), float(np.clip(difference + error, -1, 1))


def region_spread(counts: Counts, regions: np.ndarray, score: str = "miou") -> dict[str, Any] | None:
    """Return how a score differs from region to region, which says more of a new one than an interval; None with fewer than two.

    Args:
        counts: Counts per tile; each field (N,).
        regions: Region of each tile, int (N,).
        score: Name of a score.

    Returns:
        "scores", the score by region; "min", "max" and "std" of these, the standard deviation with N - 1.
    """
    names = np.unique(regions).tolist()
    if len(names) < 2:
        return None
    values = np.asarray(per_block(counts, regions).scores()[score])
    scores = {str(name): float(value) for name, value in zip(names, values, strict=True)}
    return {"scores": scores, "min": float(values.min()), "max": float(values.max()), "std": float(values.std(ddof=1))}


def per_block(counts: Counts, blocks: np.ndarray) -> Counts:
    """Return the counts of each block, in the order of the labels, from those of tiles; each field (blocks,)."""
    names, index = np.unique(np.asarray(blocks), return_inverse=True)
    return Counts(*(np.bincount(index, np.asarray(field, float), len(names)) for field in (counts.tp, counts.fp, counts.fn, counts.tn)))


def _leave_one_out(counts: Counts, score: str) -> tuple[Any, Any]:
    """Return the score over all blocks, and without each of them: of shape (…) and (blocks, …)."""
    fields = [np.asarray(field, float) for field in (counts.tp, counts.fp, counts.fn, counts.tn)]
    total = [field.sum(axis=0) for field in fields]
    return Counts(*total).scores()[score], Counts(*(whole - field for whole, field in zip(total, fields, strict=True))).scores()[score]


def _error(moved: np.ndarray) -> Any:
    """Return the standard error of a score, from how far it moves without each block, (blocks, …)."""
    return np.sqrt((len(moved) - 1) / len(moved) * (moved**2).sum(axis=0))


def _content(counts: Counts) -> np.ndarray:
    """Return what a block weighs in the scores of the foreground: its pixels of landslide, true or predicted."""
    return np.asarray(counts.tp + counts.fp + counts.fn, float)


def _quantile(content: np.ndarray) -> Any:
    """Return the 97.5 % quantile of Student's t for blocks of some content (blocks, …); a few large ones among many count as few."""
    squares = (content**2).sum(axis=0)
    effective = np.where(squares > 0, content.sum(axis=0) ** 2 / np.where(squares > 0, squares, 1), len(content))
    return stdtrit(np.maximum(effective - 1, 1), 0.975)
