"""The decision: what makes masks of predictions, chosen on out-of-fold ones, with a figure that was not itself tuned."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import optuna

from marsls_keras.counts import Counts
from marsls_keras.inference.averaging import AVERAGINGS
from marsls_keras.inference.decision import PUBLISHED, REGION, Choice
from marsls_keras.intervals import difference_interval, region_spread, score_interval
from marsls_keras.tuning.count_tables import Tables
from marsls_keras.tuning.out_of_fold import OutOfFold
from marsls_keras.view_sets import views_of

ELEMENTS = ("threshold", "views", "weights", "averaging", "min_area", "max_hole")
"""What can be decided, in the order in which it is added to the plain decision; sizes come last, since they are those of a mask."""

BIAS = "The gain of an element that is kept is biased upward: it was chosen among candidates for that gain."
"""What to think of the gains of single elements; that of the whole is nested one level deeper."""

TENTHS = 10
"""Weights are multiples of 1 / TENTHS, or equal."""


_SAFE = ("views", "weights", "averaging")
"""What may be decided for a new region on folds that are none: thresholds and sizes follow the share of landslide, which differs."""


def decide(
    oof: OutOfFold, view_sets: Sequence[str], trials: int = 200, views: str = Choice.views, purpose: str = PUBLISHED
) -> dict[str, Any]:
    """Choose how predictions become masks by pooled mIoU.

    Elements are added one after the other to the plain decision (threshold 0.5, the run's own views, equal weights), each with the
    threshold chosen anew where that is free. One stays if its gain is `credible`: nested, which is that each fold is segmented with
    what was chosen on the other folds alone, and above 0 with its whole paired interval. The nested figure of the whole goes one
    level deeper, since choosing elements is a choice as well: for each fold also the elements are those that are credible on the
    other folds, nested among these. If its gain is not credible in turn, the plain decision is kept: several elements have several
    chances to be adopted by luck.

    For a region of which nothing else is known, a gain counts only if it shows from region to region: where each fold is one, intervals are
    over folds instead of blocks. Where folds are not regions, only views, weights and averaging are offered.

    Args:
        oof: Out-of-fold predictions with all views that the sets need.
        view_sets: Names of the candidate sets of views.
        trials: Options of one element that are tried. If there are more, which only weights of several runs have, Optuna's TPE suggests
            them.
        views: Set of views of the plain decision.
        purpose: "region" or "published": what the decision is for.

    Returns:
        The content of decision.json: runs, folds, members, what it is for, whether folds were isolated, the keys of `Choice` with
        weights by run, and the scores with intervals over blocks of the plain decision (`baseline`), of the nested one (`nested`,
        None if there is one fold only), of the final one on the tiles that it was chosen on (`tuned`, optimistic), of those the one
        to expect of the final decision on new tiles (`expected`), the paired gain of nested over plain, the best threshold of each
        set of views, and `elements`: of each one offered its value (of one that is kept the decision's), its gain over those kept
        before it and alone over the plain decision, both nested and with paired intervals, and whether it is kept; `bias` says what
        to think of the gains. An interval is None where there is one block only. Where folds are geographic, `regions` has how each
        of the scores differs between them.
    """
    start = Choice(views=views)
    search = Search(Tables(oof), view_sets, trials, start, purpose)
    tables, runs, everything = search.tables, search.tables.runs, search.tables.all_units
    _, plain = tables.per_tile(start, everything)
    draws = oof.folds if search.by_region else oof.blocks
    baseline, kept = _summary(plain, oof), search.select(everything)
    final = search.choose(kept, everything)
    elements: list[dict[str, Any]] = []
    before: tuple[str, ...] = ()
    for element in search.elements:
        tried = search.choose((*before, element), everything)
        gains = {"gain": search.gain(before, element, everything), "alone": search.gain((), element, everything)}
        elements.append({"element": element, "value": tried.as_dict(runs)[element], **gains, "kept": element in kept})
        before = (*before, element) if element in kept else before
    honest, gain, per_fold = None, None, []
    if len(tables.folds) > 1:
        fields = np.zeros((4, len(oof.folds)), np.int64)
        for rank, fold in enumerate(tables.folds):
            others = tuple(unit for unit in everything if unit // 2 != rank)
            chosen = search.choose(search.select(others), others)
            index, counts = tables.per_tile(chosen, [unit for unit in everything if unit // 2 == rank])
            fields[:, index] = counts.tp, counts.fp, counts.fn, counts.tn
            per_fold.append({"fold": fold, **chosen.as_dict(runs), "miou": counts.pooled().scores()["miou"]})
        honest, gain = _summary(Counts(*fields), oof), _gain(Counts(*fields), plain, draws)
        if not credible(gain):
            final, elements = start, [{**row, "kept": False} for row in elements]
    values = final.as_dict(runs)  # a threshold is chosen anew with every element that is added
    elements = [{**row, "value": values[row["element"]]} if row["kept"] else row for row in elements]
    return {
        "runs": runs,
        "folds": tables.folds,
        "members": oof.members,
        "for": purpose,
        "isolated": oof.isolated,
        **final.as_dict(runs),
        "expected": honest if gain and credible(gain) else baseline,
        "baseline": {**start.as_dict(runs), **baseline},
        "nested": {**honest, "per_fold": per_fold} if honest else None,
        "gain": gain,
        "tuned": _summary(tables.per_tile(final, everything)[1], oof),
        "elements": elements,
        "bias": BIAS,
        "view_sets": {name: search.view_set(name) for name in view_sets},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


_START = Choice()


class Search:
    """Decisions on some units of the tiles; what was decided once is remembered.

    Attributes:
        tables: Tables of counts.
        sets: Names of the candidate sets of views, the plain one first.
        trials: Options of one element that are tried.
        start: The plain decision.
        by_region: Whether gains have to show from fold to fold, each a region.
        elements: Those of ELEMENTS that there is a choice for.
    """

    def __init__(
        self,
        tables: Tables,
        view_sets: Sequence[str],
        trials: int,
        start: Choice = _START,
        purpose: str = PUBLISHED,
    ):
        self.tables, self.trials, self.start = tables, trials, start
        self.by_region = purpose == REGION and tables.oof.geographic
        self.sets = list(dict.fromkeys((start.views, *view_sets)))
        several = len(tables.runs) > 1
        offered = {
            "views": len(self.sets) > 1,
            "weights": several,
            "averaging": several or any(len(views_of(name)) > 1 for name in self.sets),
        }
        known = ELEMENTS if purpose == PUBLISHED or self.by_region else _SAFE
        self.elements = [element for element in ELEMENTS if element in known and offered.get(element, True)]
        self.choose, self.nested = cache(self._choose), cache(self._nested)

    def select(self, units: tuple[int, ...]) -> tuple[str, ...]:
        """Return the elements whose gain is credible on these units, each fold decided on the others."""
        kept: tuple[str, ...] = ()
        for element in self.elements:
            if credible(self.gain(kept, element, units)):
                kept = (*kept, element)
        return kept

    def gain(self, kept: tuple[str, ...], element: str, units: tuple[int, ...]) -> dict[str, Any]:
        """Return what an element gains on these units, nested, if it is added to those that are kept."""
        draws = (self.tables.fold_of_part if self.by_region else self.tables.blocks)[self.tables.parts(units)]
        return _gain(self.nested((*kept, element), units), self.nested(kept, units), draws)

    def _nested(self, elements: tuple[str, ...], units: tuple[int, ...]) -> Counts:
        """Return the counts of every part of some units, segmented with what is chosen on their other folds if these elements are free."""
        fields = np.zeros((4, len(self.tables.blocks)), np.int64)
        for own, others in self._splits(units):
            parts, counts = self.tables.per_part(self.choose(elements, others), own)
            fields[:, parts] = counts.tp, counts.fp, counts.fn, counts.tn
        return Counts(*fields[:, self.tables.parts(units)])

    def view_set(self, name: str) -> dict[str, float]:
        """Return the best threshold of a set of views, all runs alike, and its mIoU."""
        miou, choice = self.tables.best_threshold(Choice(views=name), self.tables.all_units, free=True)
        return {"threshold": choice.threshold, "miou": miou}

    def _splits(self, units: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Return each group of these units with the others, on which it is decided."""
        groups = self.tables.groups(units)
        if len(groups) == 1:
            return [(units, units)]
        return [(own, tuple(unit for unit in units if unit not in own)) for own in groups]

    def _choose(self, elements: tuple[str, ...], units: tuple[int, ...]) -> Choice:
        """Return the best choice on some units with these elements free, the last one added to the choice without it."""
        if not elements:
            return self.start
        *earlier, element = elements
        choice, free = self.choose(tuple(earlier), units), "threshold" in elements
        if element in ("min_area", "max_hole"):
            return self.tables.best_sizes(choice, units, free, "min_area" in elements, "max_hole" in elements)[1]

        def scored(option: Choice) -> tuple[float, Choice]:
            return self.tables.best_threshold(option, units, free)

        if element == "weights":
            return self._weights(choice, scored)
        options = {
            "threshold": [choice],  # whose threshold is free now
            "views": [replace(choice, views=name) for name in self.sets],
            "averaging": [replace(choice, averaging=what) for what in AVERAGINGS],
        }[element]
        return max(map(scored, options), key=lambda found: found[0])[1]

    def _weights(self, choice: Choice, scored: Callable[[Choice], tuple[float, Choice]]) -> Choice:
        """Return a choice with the best weights: equal ones, or of all in tenths the best one, or the best that Optuna finds."""
        number = len(self.tables.runs)
        best = scored(choice)
        grid = _simplex(number)
        if len(grid) <= self.trials:
            return max([best, *(scored(replace(choice, weights=weights)) for weights in grid)], key=lambda found: found[0])[1]

        def objective(trial: optuna.Trial) -> float:
            weights = _in_tenths([trial.suggest_int(run, 0, TENTHS) for run in self.tables.runs])
            found = scored(replace(choice, weights=weights))
            trial.set_user_attr("choice", found)
            return found[0]

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
        study.enqueue_trial(dict.fromkeys(self.tables.runs, 1))
        study.optimize(objective, n_trials=self.trials)
        return max([best, study.best_trial.user_attrs["choice"]], key=lambda found: found[0])[1]


def _simplex(number: int) -> list[tuple[float, ...]]:
    """Return all weights in tenths that add up to 1."""
    bars = combinations(range(TENTHS + number - 1), number - 1)
    cuts = [(-1, *between, TENTHS + number - 1) for between in bars]
    return [tuple((right - left - 1) / TENTHS for left, right in zip(cut, cut[1:], strict=False)) for cut in cuts]


def _in_tenths(parts: list[int]) -> tuple[float, ...]:
    """Return parts as weights in tenths that add up to 1: rounded down, what is left given to those that lost most; none is all alike."""
    exact = np.array(parts if any(parts) else [1] * len(parts)) * TENTHS / (sum(parts) or len(parts))
    tenths = np.floor(exact)
    tenths[np.argsort(tenths - exact, kind="stable")[: TENTHS - int(tenths.sum())]] += 1
    return tuple((tenths / TENTHS).tolist())


def credible(gain: dict[str, Any]) -> bool:
    """Return whether a gain, with its paired interval, is above 0: one that a choice among many finds in noise alone hardly ever is.

    Without an interval, as there is none for one block, no gain is credible.
    """
    return gain["interval"] is not None and gain["interval"][0] > 0


def _summary(counts: Counts, oof: OutOfFold) -> dict[str, Any]:
    found = {"scores": counts.pooled().scores(), "interval": score_interval(counts, oof.blocks)}
    return found | ({"regions": region_spread(counts, oof.folds)} if oof.geographic else {})


def _gain(after: Counts, before: Counts, blocks: np.ndarray) -> dict[str, Any]:
    """Return the gain in mIoU and its paired interval."""
    difference = after.pooled().scores()["miou"] - before.pooled().scores()["miou"]
    return {"miou": difference, "interval": difference_interval(after, before, blocks)}
