"""Choose threshold, TTA, ensemble weights and post-processing by nested cross-validation on out-of-fold predictions."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
import optuna

from marsls_keras.counts import Counts
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.decision_elements import ELEMENTS, Candidates, searched
from marsls_keras.inference.decision_elements.element import SuggestedElement
from marsls_keras.inference.decision_elements.weights import equal_weights
from marsls_keras.inference.decision_record import (
    Baseline,
    ElementGain,
    Figures,
    FoldChoice,
    Gain,
    NestedFigures,
    Tuning,
    ViewSetFigures,
)
from marsls_keras.inference.purpose import Purpose
from marsls_keras.intervals import difference_interval, region_spread, score_interval
from marsls_keras.json_records import Scores
from marsls_keras.tuning.count_tables import AT_ONCE, CountTables
from marsls_keras.tuning.out_of_fold import OutOfFold

BIAS = "The gain of an element that is kept is biased upward: it was chosen among candidates for that gain."
"""Note on the gains of single elements; the gain of the whole decision is nested one level deeper."""

_Scored = tuple[float, Decision]
_Kind = TypeVar("_Kind", bound=Figures)


def decide(
    oof: OutOfFold,
    view_sets: Sequence[str],
    trials: int = 200,
    view_set: str = "identity",
    purpose: str = Purpose.PUBLISHED,
) -> Decision:
    """Choose a decision by nested cross-validation of pooled mIoU on out-of-fold predictions.

    Elements are added one after the other to the plain decision (threshold 0.5, the views of the run, equal weights),
    each with the threshold chosen again where it is free. An element is kept if its gain is credible: each fold is
    segmented with a decision that was chosen on the other folds, and the whole paired 95 % interval of the gain is
    above 0. The score of the whole decision is nested one level deeper, because choosing elements is a choice as well:
    for each fold the elements are also chosen on the other folds, by nested cross-validation among these. If the gain
    of the whole is not credible, the plain decision is returned: with several elements, one may be kept by chance.

    For a new region, gains must hold across regions: where each fold is a region, intervals are over folds instead of
    blocks. Where folds are not regions, only elements that determine the mean probability are searched.

    Args:
        oof: Out-of-fold predictions with all views of the sets.
        view_sets: Names of the candidate sets of views.
        trials: Number of weights that are tried. If there are more candidates, Optuna's TPE suggests them.
        view_set: Set of views of the plain decision.
        purpose: Purpose of the decision.

    Returns:
        The decision. Its `tuning` has the scores of the plain decision (`baseline`), of nested cross-validation
        (`nested`, None if there is one fold only), of the decision on the tiles that it was chosen on (`tuned`,
        optimistic), the expected scores on new tiles (`expected`), and the gain of each element.

    Raises:
        ValueError: If there is no such purpose.

    Example:
        >>> oof = collect([run], tiles, views_of("d4"))  # doctest: +SKIP
        >>> decide(oof, ["identity", "d4"]).describe()  # doctest: +SKIP
        'views d4, threshold 0.43'
    """
    search = NestedSearch(CountTables(oof), view_sets, trials, view_set, purpose)
    tables, start, everything = search.tables, search.start, search.tables.all_halves
    _, plain = tables.per_tile(start, everything)
    expected, nested, gain = _figures(Figures, plain, oof), None, None
    kept = search.select(everything)
    final, elements = search.choose(kept, everything), _element_gains(search, kept)
    if len(tables.folds) > 1:
        counts, per_fold = _nested(search, oof)
        nested = _figures(NestedFigures, counts, oof, per_fold=per_fold)
        gain = _gain(counts, plain, oof.folds if search.by_region else oof.blocks)
        if gain.credible:
            expected = _figures(Figures, counts, oof)
        else:
            final, elements = start, [row.model_copy(update={"kept": False}) for row in elements]
    values = final.to_values()  # with every added element the threshold was chosen again
    elements = [row.model_copy(update={"value": values[row.element]}) if row.kept else row for row in elements]
    tuning = Tuning(
        runs=tables.runs,
        folds=tables.folds,
        members=oof.members,
        **{"for": Purpose(purpose)},
        isolated=oof.isolated,
        expected=expected,
        baseline=_figures(Baseline, plain, oof, **start.to_values()),
        nested=nested,
        gain=gain,
        tuned=_figures(Figures, tables.per_tile(final, everything)[1], oof),
        elements=elements,
        bias=BIAS,
        view_sets={name: search.best_of_views(name) for name in view_sets},
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    return Decision(tuning, **values)


class NestedSearch:
    """Greedy search for decisions on subsets of half-folds, with cached results.

    Args:
        tables: Tables of counts.
        view_sets: Names of the candidate sets of views.
        trials: Number of options that are tried of an element with many options (`SuggestedElement`).
        view_set: Set of views of the plain decision.
        purpose: Purpose of the decision.

    Attributes:
        tables: Likewise.
        trials: Likewise.
        start: The plain decision, with equal weights.
        by_region: Whether intervals of gains are over folds, each a region, instead of blocks.
        candidates: Candidate runs and sets of views; the set of the plain decision is the first.
        elements: Names of the elements to search, in the order in which they are added.

    Example:
        >>> search = NestedSearch(CountTables(oof), ["identity", "d4"])  # doctest: +SKIP
        >>> search.choose(("threshold",), search.tables.all_halves).threshold  # doctest: +SKIP
        0.43
    """

    def __init__(
        self,
        tables: CountTables,
        view_sets: Sequence[str],
        trials: int = 200,
        view_set: str = "identity",
        purpose: str = Purpose.PUBLISHED,
    ):
        self.tables, self.trials = tables, trials
        self.start = Decision(views=view_set, weights=equal_weights(tables.runs))
        self.by_region = Purpose(purpose) is Purpose.REGION and tables.oof.geographic
        sets = tuple(dict.fromkeys((view_set, *view_sets)))
        representative = Purpose(purpose) is Purpose.PUBLISHED or self.by_region
        self.candidates = Candidates(tuple(tables.runs), sets, representative)
        self.elements = [element.name for element in searched(self.candidates)]
        self.choose, self.nested = cache(self._choose), cache(self._nested)

    def select(self, halves: tuple[int, ...]) -> tuple[str, ...]:
        """Return the elements whose cross-validated gain is credible on some half-folds."""
        kept: tuple[str, ...] = ()
        for element in self.elements:
            if self.gain(kept, element, halves).credible:
                kept = (*kept, element)
        return kept

    def gain(self, kept: tuple[str, ...], element: str, halves: tuple[int, ...]) -> Gain:
        """Return the cross-validated gain of adding an element to the kept ones, on some half-folds."""
        draws = (self.tables.fold_of_part if self.by_region else self.tables.blocks)[self.tables.parts(halves)]
        return _gain(self.nested((*kept, element), halves), self.nested(kept, halves), draws)

    def best_of_views(self, view_set: str) -> ViewSetFigures:
        """Return the best threshold of a set of views, with equal weights, and its mIoU."""
        miou, found = self.tables.best(self.start.replace(views=view_set), self.tables.all_halves, {"threshold"})
        return ViewSetFigures(threshold=found.threshold, miou=miou)

    def _nested(self, elements: tuple[str, ...], halves: tuple[int, ...]) -> Counts:
        """Return the counts of each part, with the given elements chosen on the other folds."""
        fields = np.zeros((4, len(self.tables.blocks)), np.int64)
        for own, others in self._splits(halves):
            parts, counts = self.tables.per_part(self.choose(elements, others), own)
            fields[:, parts] = counts.tp, counts.fp, counts.fn, counts.tn
        return Counts(*fields[:, self.tables.parts(halves)])

    def _splits(self, halves: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Return pairs of half-folds: those to evaluate, and those to choose a decision on."""
        groups = self.tables.groups(halves)
        if len(groups) == 1:
            return [(halves, halves)]
        return [(own, tuple(half for half in halves if half not in own)) for own in groups]

    def _choose(self, elements: tuple[str, ...], halves: tuple[int, ...]) -> Decision:
        """Return the best decision on some half-folds, by adding the elements one after the other."""
        if not elements:
            return self.start
        *earlier, name = elements
        current = self.choose(tuple(earlier), halves)

        def scored(option: Decision) -> _Scored:
            return self.tables.best(option, halves, elements)

        best = scored(current)
        if name in AT_ONCE:
            return best[1]
        options = list(ELEMENTS[name].options(self.candidates))
        element = ELEMENTS[name]
        if isinstance(element, SuggestedElement) and len(options) > self.trials:
            found = [self._suggested(element, current, scored)]
        else:
            found = [scored(current.replace(**{name: option})) for option in options]
        return max([best, *found], key=lambda pair: pair[0])[1]

    def _suggested(
        self, element: SuggestedElement[Any], current: Decision, scored: Callable[[Decision], _Scored]
    ) -> _Scored:
        """Return the best scored option of an element among those that Optuna's TPE suggests."""

        def objective(trial: optuna.Trial) -> float:
            found = scored(current.replace(**{element.name: element.suggest(trial, self.candidates)}))
            trial.set_user_attr("found", found)
            return found[0]

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
        study.enqueue_trial(dict(element.first_trial(self.candidates)))
        study.optimize(objective, n_trials=self.trials)
        best: _Scored = study.best_trial.user_attrs["found"]
        return best


def _nested(search: NestedSearch, oof: OutOfFold) -> tuple[Counts, list[FoldChoice]]:
    """Return the counts of each tile and the decision of each fold, both elements and values chosen on the others."""
    tables, everything = search.tables, search.tables.all_halves
    fields, per_fold = np.zeros((4, len(oof.folds)), np.int64), []
    for rank, fold in enumerate(tables.folds):
        others = tuple(half for half in everything if half // 2 != rank)
        chosen = search.choose(search.select(others), others)
        index, counts = tables.per_tile(chosen, [half for half in everything if half // 2 == rank])
        fields[:, index] = counts.tp, counts.fp, counts.fn, counts.tn
        per_fold.append(FoldChoice(fold=fold, **chosen.to_values(), miou=counts.pooled().scores()["miou"]))
    return Counts(*fields), per_fold


def _element_gains(search: NestedSearch, kept: Sequence[str]) -> list[ElementGain]:
    """Return the gain of each element over the elements kept before it, and over the plain decision."""
    everything, rows = search.tables.all_halves, []
    before: tuple[str, ...] = ()
    for name in search.elements:
        value = search.choose((*before, name), everything).to_values()[name]
        gain, alone = search.gain(before, name, everything), search.gain((), name, everything)
        rows.append(ElementGain(element=name, value=value, gain=gain, alone=alone, kept=name in kept))
        before = (*before, name) if name in kept else before
    return rows


def _figures(kind: type[_Kind], counts: Counts, oof: OutOfFold, **others: Any) -> _Kind:
    """Compute scores, interval and spread over regions from the counts of all tiles, with other fields of the model."""
    interval = score_interval(counts, oof.blocks)
    if oof.geographic:
        others = {"regions": region_spread(counts, oof.folds), **others}
    return kind(
        scores=Scores(**counts.pooled().scores()), interval=None if interval is None else list(interval), **others
    )


def _gain(after: Counts, before: Counts, draws: np.ndarray) -> Gain:
    """Return the gain in pooled mIoU and its paired interval; `draws` labels each count's block or region."""
    difference = after.pooled().scores()["miou"] - before.pooled().scores()["miou"]
    interval = difference_interval(after, before, draws)
    return Gain(miou=difference, interval=None if interval is None else list(interval))
