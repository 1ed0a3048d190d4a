"""Confusion counts of candidate decisions from precomputed tables: histograms, and positives by component size."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache, lru_cache

import numpy as np

from marsls_keras.counts import BINS, Counts, confusion, counts_at_thresholds, histogram
from marsls_keras.data.grid.stitching import stitch
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.decision_elements.max_hole import HOLES, MAX_HOLE
from marsls_keras.inference.decision_elements.min_area import AREAS, MIN_AREA
from marsls_keras.inference.decision_elements.threshold import THRESHOLD
from marsls_keras.inference.sliding_window import stitchable
from marsls_keras.tuning.component_counts import positives_by_area
from marsls_keras.tuning.out_of_fold import OutOfFold

AT_ONCE = frozenset({THRESHOLD.name, MIN_AREA.name, MAX_HOLE.name})
"""Names of the elements for which the tables hold the counts of all options."""

_FINE = 5  # step in bins of the second pass over thresholds with post-processing
_COARSE = 20  # step in bins of the first pass, 1/50
_LAST = 32  # size of the caches of tables per part
_REACH = 200  # bins searched on both sides of the best threshold without post-processing, which is a good first guess


class CountTables:
    """Tables of confusion counts of out-of-fold predictions, for fast comparison of decisions.

    Where the positions of the tiles are known, masks are post-processed in the rasters that the tiles were cut from. A
    decision for some tiles is then applied to the out-of-fold masks of all tiles, and counted on those tiles.

    Counts are kept per part, a block in a half of a fold, which intervals need. The blocks of a fold alternate between
    its two halves. Where there is one fold only, each half is decided on the other. The tables of halves are small and
    all cached. Those of parts, and the arrays they are made of, are cached for the last few means only, to limit
    memory.

    Attributes:
        oof: The predictions.
        runs: Names of the runs, R of them.
        half: Half-fold of each tile, int (N,): twice the rank of its fold, plus one for every other block.
        part: Part of each tile, int (N,).
        blocks: Block of each part, (P,).
        fold_of_part: Rank of the fold of each part, int (P,).
        folds: Numbers of the folds.

    Example:
        >>> tables = CountTables(collect([run], tiles, ["identity"]))  # doctest: +SKIP
        >>> tables.best(Decision(), tables.all_halves, {"threshold"})  # doctest: +SKIP
        (0.7312, Decision(views='identity', threshold=0.42))
    """

    def __init__(self, oof: OutOfFold):
        self._in_pictures = stitchable(oof.places)
        self.oof, self.runs, self.folds = oof, list(oof.probabilities), sorted(set(oof.folds.tolist()))
        self.half = np.zeros(len(oof.folds), int)
        for rank, fold in enumerate(self.folds):
            index = np.flatnonzero(oof.folds == fold)
            self.half[index] = 2 * rank + np.unique(oof.blocks[index], return_inverse=True)[1] % 2
        names, block = np.unique(oof.blocks, return_inverse=True)
        parts, self.part = np.unique(self.half * len(names) + block, return_inverse=True)
        self._half_of_part, self.blocks = parts // len(names), names[parts % len(names)]
        self.fold_of_part = self._half_of_part // 2
        self._over_views = lru_cache(maxsize=2 * len(self.runs))(oof.over_views)
        self._probability = lru_cache(maxsize=2)(self._average)
        self._masks = lru_cache(maxsize=2 * len(self.folds))(self._segment)
        self._part_histograms = lru_cache(maxsize=_LAST)(self._make_histograms)
        self._part_positives = lru_cache(maxsize=_LAST)(self._make_positives)
        self._histograms = cache(lambda mean: self._by_half(self._part_histograms(mean)))
        self._positives = cache(lambda unsized: self._by_half(self._part_positives(unsized)))

    @property
    def all_halves(self) -> tuple[int, ...]:
        """Half-folds that contain tiles."""
        return tuple(sorted(set(self.half.tolist())))

    def groups(self, halves: Sequence[int]) -> list[tuple[int, ...]]:
        """Group half-folds for cross-validation: by fold, or each alone if they are of one fold."""
        folds = sorted({half // 2 for half in halves})
        if len(folds) == 1:
            return [(half,) for half in halves]
        return [tuple(half for half in halves if half // 2 == fold) for fold in folds]

    def best(self, decision: Decision, halves: Sequence[int], free: Collection[str]) -> tuple[float, Decision]:
        """Find the best values of the free elements by pooled mIoU on some half-folds.

        Without post-processing all thresholds are compared. With post-processing they are searched every 1/50 around
        the threshold of the decision, then in finer steps around the best. The lowest values win among equal scores.

        Args:
            decision: A decision, without tuning.
            halves: The half-folds.
            free: Names of the elements to choose; those outside of `AT_ONCE` have no effect. A threshold that is not
                free stays, sizes that are not free become 0.

        Returns:
            The mIoU, and the decision that has it.
        """
        areas, holes, steps = MIN_AREA.name in free, MAX_HOLE.name in free, decision.mask_steps
        if not (areas or holes or steps):
            return self._best_threshold(decision, halves, THRESHOLD.name in free)
        total = self._histograms(decision.averages_only())[list(halves)].sum((0, 2))
        sized = [*HOLES][: None if holes else 1], [*AREAS][: None if areas else 1]
        unsized = decision.replace(max_hole=0, min_area=0, across_borders=False)
        changed = bool(unsized.mask_steps)

        def at(k: int) -> tuple[float, int, int, int]:
            counts = self._positives(unsized.replace(threshold=k / BINS))[list(halves)].sum(0)[
                : len(sized[0]), : len(sized[1])
            ]
            fp, tp = counts[..., 0], counts[..., 1]
            curve = Counts(tp, fp, total[1] - tp, total[0] - fp).scores()["miou"]
            hole, area = np.unravel_index(np.argmax(curve), curve.shape)
            return float(curve[hole, area]), k, sized[0][hole], sized[1][area]

        middle = round(decision.threshold * BINS)
        found = at(middle)
        for reach, step in ((_REACH, _COARSE), (_COARSE // 2, _FINE)) if THRESHOLD.name in free else ():
            middle = found[1]
            # Multiples of the step, so that searches on other halves find the tables of the same thresholds in the
            # cache.
            thresholds = range(-(-(middle - reach) // step) * step, middle + reach + 1, step)
            found = max([found, *(at(k) for k in thresholds if 0 < k < BINS)], key=lambda scored: scored[0])
        miou, k, hole, area = found
        across = self._in_pictures and (changed or bool(hole or area))
        return miou, unsized.replace(threshold=k / BINS, max_hole=hole, min_area=area, across_borders=across)

    def parts(self, halves: Sequence[int]) -> np.ndarray:
        """Return the parts of some half-folds, ascending, int."""
        return np.flatnonzero(np.isin(self._half_of_part, halves))

    def per_part(self, decision: Decision, halves: Sequence[int]) -> tuple[np.ndarray, Counts]:
        """Return the parts of some half-folds and the confusion counts of a decision in each, from the tables."""
        parts = self.parts(halves)
        k, table = round(decision.threshold * BINS), self._part_histograms(decision.averages_only())[parts]
        fp, tp = table[:, :, k:].sum(2).T
        if decision.mask_steps:
            sizes = HOLES.index(decision.max_hole), AREAS.index(decision.min_area)
            unsized = decision.replace(threshold=k / BINS, max_hole=0, min_area=0, across_borders=False)
            fp, tp = self._part_positives(unsized)[(parts, *sizes)].T
        return parts, Counts(tp, fp, table[:, 1].sum(1) - tp, table[:, 0].sum(1) - fp)

    def per_tile(self, decision: Decision, halves: Sequence[int]) -> tuple[np.ndarray, Counts]:
        """Return the positions of the tiles of some half-folds and their counts, from masks of `Decision.segment`."""
        index = np.flatnonzero(np.isin(self.half, halves))
        if decision.across_borders:
            masks = self._masks(decision)[index]
        else:
            refs = [self.oof.tiles.refs[i] for i in index]
            masks = decision.segment(self._probability(decision.averages_only())[index], refs)
        return index, confusion(self.oof.tiles.masks[index], masks, axis=(1, 2))

    def _best_threshold(self, decision: Decision, halves: Sequence[int], free: bool) -> tuple[float, Decision]:
        """Return the mIoU and the decision with the best threshold if it is free, else its own; no post-processing."""
        curve = counts_at_thresholds(self._histograms(decision.averages_only())[list(halves)].sum(0)).scores()["miou"]
        # Threshold 0 is left out: every pixel would be landslide.
        k = int(np.argmax(curve[1:])) + 1 if free else round(decision.threshold * BINS)
        return float(curve[k]), decision.replace(threshold=k / BINS) if free else decision

    def _average(self, mean: Decision) -> np.ndarray:
        """Return the mean probability, float32 (N, H, W), of a decision from `Decision.averages_only`."""
        weights = mean.run_weights
        used = [run for run in self.runs if weights is None or weights[run] > 0]
        return self.oof.mean(
            {run: self._over_views(run, mean.view_set, mean.averaging) for run in used}, weights, mean.averaging
        )

    def _make_histograms(self, mean: Decision) -> np.ndarray:
        """Return the histograms of probability by class of each part, (P, 2, BINS)."""
        probability, masks = self._probability(mean), self.oof.tiles.masks
        tiles = (self.part == part for part in range(len(self.blocks)))
        return np.stack([histogram(masks[own], probability[own]) for own in tiles])

    def _make_positives(self, unsized: Decision) -> np.ndarray:
        """Return false and true positives of each part at all candidate sizes, (P, holes, areas, 2).

        The steps of `unsized` are applied to the masks first. Components and holes are found in the rasters if the
        positions of the tiles are known, else in each tile.
        """
        masks = self._probability(unsized.averages_only()) >= np.float32(unsized.threshold)
        tiles, parts = self.oof.tiles, len(self.blocks)
        if not self._in_pictures:
            masks = unsized.post_process(masks, np.ones_like(masks))
            return positives_by_area(masks, tiles.masks, self.part[:, None, None], parts)
        layers = np.stack(
            [masks, tiles.masks, np.broadcast_to(self.part[:, None, None], masks.shape) + 1], -1, dtype=np.int32
        )
        total = np.zeros((parts, len(HOLES), len(AREAS), 2), np.int64)
        for picture, _ in stitch(self.oof.places, layers):
            mask, truth, part = np.moveaxis(picture, -1, 0)
            mask = unsized.post_process(mask != 0, part > 0)
            total += positives_by_area(mask[None], truth[None], part[None] - 1, parts)
        return total

    def _by_half(self, tables: np.ndarray) -> np.ndarray:
        """Sum tables of parts (P, …) to tables of half-folds (2 F, …); half-folds without tiles are 0."""
        found = np.zeros((2 * len(self.folds), *tables.shape[1:]), np.int64)
        np.add.at(found, self._half_of_part, tables)
        return found

    def _segment(self, decision: Decision) -> np.ndarray:
        return decision.segment(self._probability(decision.averages_only()), self.oof.places)
