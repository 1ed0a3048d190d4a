"""Counts of every decision that `tune` compares, from tables that are made once: histograms, and components by size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache

import numpy as np

from marsls_keras.counts import BINS, Counts, confusion, counts_at_thresholds, histogram
from marsls_keras.data.grid.stitching import stitch
from marsls_keras.inference.decision import Choice, segment
from marsls_keras.inference.sliding_window import stitchable
from marsls_keras.tuning.component_counts import AREAS, HOLES, positives_by_area
from marsls_keras.tuning.out_of_fold import OutOfFold

_FINE = 5  # bins between the last thresholds that are tried with post-processing
_COARSE = 20  # and between those before, 1/50
_LAST = 32  # tables of parts that are kept
_REACH = 200  # how far from the threshold that is best without; small components call for another one, but not for any other


class Tables:
    """Out-of-fold predictions as tables of counts.

    Where it is known where the tiles lie, components and holes are those of the pictures that they were cut from: what is decided for some
    tiles is done to the out-of-fold masks of all, and counted on those.

    They are kept per part, which is a block of a fold, so that intervals follow from them. Every other block of a fold belongs to one unit:
    units add up to folds, and where there is one fold only, its halves can be decided on one another. Tables of units, which are small, are
    all kept; those of parts, and the arrays that they are made of, for the last averages only, which bounds the memory.

    Attributes:
        oof: The predictions.
        runs: Names of the runs, R of them.
        unit: int (N,), the unit of each tile: twice the rank of its fold, plus one for every other block.
        part: int (N,), the part of each tile.
        blocks: Block of each part, (P,).
        fold_of_part: Rank of the fold of each part, int (P,).
        folds: Numbers of the folds.
    """

    def __init__(self, oof: OutOfFold):
        self._across_borders = stitchable(oof.places)
        self.oof, self.runs, self.folds = oof, list(oof.runs), sorted(set(oof.folds.tolist()))
        self.unit = np.zeros(len(oof.folds), int)
        for rank, fold in enumerate(self.folds):
            index = np.flatnonzero(oof.folds == fold)
            self.unit[index] = 2 * rank + np.unique(oof.blocks[index], return_inverse=True)[1] % 2
        names, block = np.unique(oof.blocks, return_inverse=True)
        parts, self.part = np.unique(self.unit * len(names) + block, return_inverse=True)
        self._unit_of, self.blocks = parts // len(names), names[parts % len(names)]
        self.fold_of_part = self._unit_of // 2
        self._over_views = lru_cache(maxsize=2 * len(self.runs))(oof.over_views)
        self._probability = lru_cache(maxsize=2)(self._average)
        self._masks = lru_cache(maxsize=2 * len(self.folds))(self._segment)
        self._part_histograms = lru_cache(maxsize=_LAST)(self._make_histograms)
        self._part_positives = lru_cache(maxsize=_LAST)(self._make_positives)
        self._histograms = cache(lambda average: self._by_unit(self._part_histograms(average)))
        self._positives = cache(lambda average, k: self._by_unit(self._part_positives(average, k)))

    @property
    def all_units(self) -> tuple[int, ...]:
        """The units that hold tiles."""
        return tuple(sorted(set(self.unit.tolist())))

    def groups(self, units: Sequence[int]) -> list[tuple[int, ...]]:
        """Return units in groups that can be decided on one another: folds, or for one fold its halves."""
        folds = sorted({unit // 2 for unit in units})
        if len(folds) == 1:
            return [(unit,) for unit in units]
        return [tuple(unit for unit in units if unit // 2 == fold) for fold in folds]

    def best_threshold(self, choice: Choice, units: Sequence[int], free: bool) -> tuple[float, Choice]:
        """Return the mIoU of a choice without post-processing on some units, and the choice, its threshold the best one if it is free.

        Among equals the lowest threshold wins. 0 is none: everything would be landslide.
        """
        curve = counts_at_thresholds(self._histograms(_average_of(choice))[list(units)].sum(0)).scores()["miou"]
        k = int(np.argmax(curve[1:])) + 1 if free else round(choice.threshold * BINS)
        return float(curve[k]), replace(choice, threshold=k / BINS) if free else choice

    def best_sizes(self, choice: Choice, units: Sequence[int], free: bool, areas: bool, holes: bool) -> tuple[float, Choice]:
        """Return the mIoU on some units with the best post-processing, and the choice that has it; among equals the smallest sizes win.

        Args:
            choice: Average and threshold; its sizes do not matter.
            units: The units.
            free: Whether another threshold may be chosen: every 1/50 around it, then finer around the best of those.
            areas: Whether small components may be removed.
            holes: Whether small holes may be filled.
        """
        total = self._histograms(_average_of(choice))[list(units)].sum((0, 2))

        def at(k: int) -> tuple[float, Choice]:
            found = self._positives(_average_of(choice), k)[list(units)].sum(0)[: None if holes else 1, : None if areas else 1]
            fp, tp = found[..., 0], found[..., 1]
            curve = Counts(tp, fp, total[1] - tp, total[0] - fp).scores()["miou"]
            hole, area = np.unravel_index(np.argmax(curve), curve.shape)
            chosen = replace(choice, threshold=k / BINS, max_hole=HOLES[hole], min_area=AREAS[area])
            return float(curve[hole, area]), replace(chosen, across_borders=self._across_borders and bool(hole or area))

        middle = round(choice.threshold * BINS)
        best = at(middle)
        for reach, step in ((_REACH, _COARSE), (_COARSE // 2, _FINE)) if free else ():
            middle = round(best[1].threshold * BINS)
            # Multiples of the step, so that decisions on other units look at the same thresholds, of which there are tables already.
            thresholds = range(-(-(middle - reach) // step) * step, middle + reach + 1, step)
            best = max([best, *(at(k) for k in thresholds if 0 < k < BINS)], key=lambda scored: scored[0])
        return best

    def parts(self, units: Sequence[int]) -> np.ndarray:
        """Return the parts of some units, in their order, int."""
        return np.flatnonzero(np.isin(self._unit_of, units))

    def per_part(self, choice: Choice, units: Sequence[int]) -> tuple[np.ndarray, Counts]:
        """Return the parts of some units and the counts of a choice in each."""
        parts = self.parts(units)
        k, table = round(choice.threshold * BINS), self._part_histograms(_average_of(choice))[parts]
        fp, tp = table[:, :, k:].sum(2).T
        if choice.min_area or choice.max_hole:
            sizes = HOLES.index(choice.max_hole), AREAS.index(choice.min_area)
            fp, tp = self._part_positives(_average_of(choice), k)[(parts, *sizes)].T
        return parts, Counts(tp, fp, table[:, 1].sum(1) - tp, table[:, 0].sum(1) - fp)

    def per_tile(self, choice: Choice, units: Sequence[int]) -> tuple[np.ndarray, Counts]:
        """Return the positions of the tiles of some units and their counts, of masks made as every other command makes them."""
        index = np.flatnonzero(np.isin(self.unit, units))
        if choice.across_borders:
            masks = self._masks(choice)[index]
        else:
            refs = [self.oof.tiles.refs[i] for i in index]
            masks = segment(choice.as_dict(self.runs), self._probability(*_average_of(choice))[index], refs)
        return index, confusion(self.oof.tiles.masks[index], masks, axis=(1, 2))

    def _average(self, views: str, weights: tuple[float, ...], averaging: str) -> np.ndarray:
        named = dict(zip(self.runs, weights, strict=True)) if weights else None
        used = [run for run in self.runs if named is None or named[run] > 0]
        return self.oof.mean({run: self._over_views(run, views, averaging) for run in used}, named, averaging)

    def _make_histograms(self, average: tuple[str, tuple[float, ...], str]) -> np.ndarray:
        """Return the histograms (P, 2, BINS) of each part."""
        probability, masks = self._probability(*average), self.oof.tiles.masks
        tiles = (self.part == part for part in range(len(self.blocks)))
        return np.stack([histogram(masks[own], probability[own]) for own in tiles])

    def _make_positives(self, average: tuple[str, tuple[float, ...], str], k: int) -> np.ndarray:
        masks, tiles, parts = self._probability(*average) >= np.float32(k / BINS), self.oof.tiles, len(self.blocks)
        if not self._across_borders:
            return positives_by_area(masks, tiles.masks, self.part[:, None, None], parts)
        layers = np.stack([masks, tiles.masks, np.broadcast_to(self.part[:, None, None], masks.shape) + 1], -1, dtype=np.int32)
        pieces = (np.moveaxis(picture, -1, 0)[:, None] for picture, _ in stitch(self.oof.places, layers))
        return np.sum([positives_by_area(mask != 0, truth, part - 1, parts) for mask, truth, part in pieces], axis=0)

    def _by_unit(self, tables: np.ndarray) -> np.ndarray:
        """Return tables of parts (P, …) added up to those of units (U, …), empty ones among them."""
        found = np.zeros((2 * len(self.folds), *tables.shape[1:]), np.int64)
        np.add.at(found, self._unit_of, tables)
        return found

    def _segment(self, choice: Choice) -> np.ndarray:
        return segment(choice.as_dict(self.runs), self._probability(*_average_of(choice)), self.oof.places)


def _average_of(choice: Choice) -> tuple[str, tuple[float, ...], str]:
    return choice.views, choice.weights, choice.averaging
