"""Choose threshold, views, weights and post-processing on out-of-fold predictions, and write the decision."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from marsls_keras.data.splits import require_held_out
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.decision_files import decision_path, plain_decision
from marsls_keras.inference.inputs import bands_of
from marsls_keras.inference.purpose import Purpose
from marsls_keras.inference.sliding_window import require_whole_picture, stitchable
from marsls_keras.progress import stage
from marsls_keras.runs.opened import open_runs
from marsls_keras.tuning.out_of_fold import collect, pool_tiles
from marsls_keras.view_sets import of_windows, views_of

logger = logging.getLogger(__name__)


def tune(
    names: Sequence[str],
    runs: Path,
    folds: list[int] | None,
    data: Path | None,
    trials: int,
    sets: Sequence[str],
    purpose: Purpose = Purpose.REGION,
) -> tuple[Decision, Path]:
    """Choose threshold, views, weights and post-processing of a run or an ensemble by nested cross-validation.

    Args:
        names: Names of the runs.
        runs: Folder of the runs.
        folds: Folds to use; all by default.
        data: Data folder; that of the first run by default.
        trials: Number of weights that are tried.
        sets: Candidate sets of views; those of the first run's configuration if empty.
        purpose: "region": windows see only what a fold holds out, as in a new region; or "published": windows see all
            images of the pool (`marsls_keras.tuning.nested_search.decide`).

    Returns:
        The decision, and the path it was written to.

    Raises:
        InputError: If a run, fold, set of views or the data are missing or do not fit together.

    Example:
        >>> decision, path = tune(["default"], Path("runs"), None, None, trials=200, sets=[])  # doctest: +SKIP
    """
    require_held_out(folds)
    opened, _ = open_runs(names, runs, folds)
    sets = sets or opened[0].config.inference.view_sets
    for name in sets:
        views_of(name)
    stretched = next((p for run in opened if (p := run.config.data.normalization.percentiles) is not None), None)
    for name in filter(of_windows, sets):
        require_whole_picture(stretched, name)
    tiles = pool_tiles(opened[0], data, bands_of(opened))
    plain = plain_decision(opened).view_set
    if not stitchable(tiles.refs) and (out := list(filter(of_windows, dict.fromkeys([plain, *sets])))):
        logger.info(
            "The names of the tiles do not tell where each lies, so there are no windows across borders: "
            f"without views {', '.join(out)}."
        )
        sets, plain = [name for name in sets if name not in out], plain.partition("@")[0]
    sets = list(dict.fromkeys([plain, *sets]))
    if purpose == Purpose.REGION and opened[0].splits.cv not in ("geographic", "areas"):
        logger.info(
            f"The folds of run {names[0]} are no regions (data.cv {opened[0].splits.cv}): "
            "a new region will score lower, and threshold and sizes stay as they are. "
            "data.cv geographic or areas holds regions out; --for published decides for tiles among labelled ones."
        )
    views = list(dict.fromkeys(view for name in sets for view in views_of(name)))
    oof = collect(opened, tiles, views, folds, purpose == Purpose.REGION)
    from marsls_keras.tuning.nested_search import decide  # with Optuna

    with stage("Choosing the decision"):
        decision = decide(oof, sets, trials, plain, purpose).sealed()
    path = decision_path(opened, purpose)
    decision.write(path)
    return decision, path
