"""Count what every decision that the search compares would get right, from tables made once: histograms, and components by size."""

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
"""Names of the elements of which the tables hold the counts of all options."""

_FINE = 5  # bins between the last thresholds that are tried with post-processing
_COARSE = 20  # and between those before, 1/50
_LAST = 32  # tables of parts that are kept
_REACH = (
    200  # how far from the threshold that is best without; small components call for another one, but not for any other
)


class CountTables:
    """Out-of-fold predictions as tables of counts.

    Where it is known where the tiles lie, masks are post-processed in the pictures that the tiles were cut from: what
    is decided for some tiles is done to the out-of-fold masks of all, and counted on those.

    Counts are kept per part, which is a block in a half of a fold, so that intervals follow from them. Every other
    block of a fold belongs to the same half: halves add up to folds, and where there is one fold only, its halves can
    be decided on one another. Tables of halves, which are small, are all kept; those of parts, and the arrays that they
    are made of, for the last means only, which bounds the memory.

    Attributes:
        oof: The predictions.
        runs: Names of the runs, R of them.
        half: int (N,), the half-fold of each tile: twice the rank of its fold, plus one for every other block.
        part: int (N,), the part of each tile.
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
        """The half-folds that hold tiles."""
        return tuple(sorted(set(self.half.tolist())))

    def groups(self, halves: Sequence[int]) -> list[tuple[int, ...]]:
        """Return half-folds in groups that can be decided on one another: folds, or for one fold its halves."""
        folds = sorted({half // 2 for half in halves})
        if len(folds) == 1:
            return [(half,) for half in halves]
        return [tuple(half for half in halves if half // 2 == fold) for fold in folds]

    def best(self, decision: Decision, halves: Sequence[int], free: Collection[str]) -> tuple[float, Decision]:
        """Return the best pooled mIoU on some half-folds, and the decision that has it; among equals the lowest values win.

        With post-processing, thresholds are tried every 1/50 around that of the decision, then finer around the best of
        those.

        Args:
            decision: A decision, without tuning.
            halves: The half-folds.
            free: Names of the elements that may be chosen, of those in `AT_ONCE`. A threshold that is not free stays,
                sizes become 0.
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
            # Multiples of the step, so that decisions on other halves look at the same thresholds, of which there are
            # tables already.
            thresholds = range(-(-(middle - reach) // step) * step, middle + reach + 1, step)
            found = max([found, *(at(k) for k in thresholds if 0 < k < BINS)], key=lambda scored: scored[0])
        miou, k, hole, area = found
        across = self._in_pictures and (changed or bool(hole or area))
        return miou, unsized.replace(threshold=k / BINS, max_hole=hole, min_area=area, across_borders=across)

    def parts(self, halves: Sequence[int]) -> np.ndarray:
        """Return the parts of some half-folds, in their order, int."""
        return np.flatnonzero(np.isin(self._half_of_part, halves))

    def per_part(self, decision: Decision, halves: Sequence[int]) -> tuple[np.ndarray, Counts]:
        """Return the parts of some half-folds and the counts of a decision in each."""
        parts = self.parts(halves)
        k, table = round(decision.threshold * BINS), self._part_histograms(decision.averages_only())[parts]
        fp, tp = table[:, :, k:].sum(2).T
        if decision.mask_steps:
            sizes = HOLES.index(decision.max_hole), AREAS.index(decision.min_area)
            unsized = decision.replace(threshold=k / BINS, max_hole=0, min_area=0, across_borders=False)
            fp, tp = self._part_positives(unsized)[(parts, *sizes)].T
        return parts, Counts(tp, fp, table[:, 1].sum(1) - tp, table[:, 0].sum(1) - fp)

    def per_tile(self, decision: Decision, halves: Sequence[int]) -> tuple[np.ndarray, Counts]:
        """Return the positions of the tiles of some half-folds and their counts, of masks made as every other command makes them."""
        index = np.flatnonzero(np.isin(self.half, halves))
        if decision.across_borders:
            masks = self._masks(decision)[index]
        else:
            refs = [self.oof.tiles.refs[i] for i in index]
            masks = decision.segment(self._probability(decision.averages_only())[index], refs)
        return index, confusion(self.oof.tiles.masks[index], masks, axis=(1, 2))

    def _best_threshold(self, decision: Decision, halves: Sequence[int], free: bool) -> tuple[float, Decision]:
        """Return the mIoU of a decision without post-processing, and the decision, with the best threshold if it is free."""
        curve = counts_at_thresholds(self._histograms(decision.averages_only())[list(halves)].sum(0)).scores()["miou"]
        # Threshold 0 is none: all would be landslide.
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
        """Return the histograms (P, 2, BINS) of each part."""
        probability, masks = self._probability(mean), self.oof.tiles.masks
        tiles = (self.part == part for part in range(len(self.blocks)))
        return np.stack([histogram(masks[own], probability[own]) for own in tiles])

    def _make_positives(self, unsized: Decision) -> np.ndarray:
        """Return the counts (P, holes, areas, 2) of each part at all sizes, after all steps but the sizes, with known borders or none."""
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
        """Return tables of parts (P, …) added up to those of half-folds (2 F, …), empty ones among them."""
        found = np.zeros((2 * len(self.folds), *tables.shape[1:]), np.int64)
        np.add.at(found, self._half_of_part, tables)
        return found

    def _segment(self, decision: Decision) -> np.ndarray:
        return decision.segment(self._probability(decision.averages_only()), self.oof.places)
