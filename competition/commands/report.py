"""Collect the results of runs and write them as an HTML report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from competition.commands.evaluate import among_neighbours
from competition.ledger.answers import LEDGER, answers
from competition.search.study_record import StudyRecord
from marsls_keras.errors import InputError
from marsls_keras.inference.decision_files import decision_path, plain_decision, read_decision
from marsls_keras.inference.purpose import Purpose
from marsls_keras.json_records import read_record
from marsls_keras.progress import stage
from marsls_keras.runs.names import run_folder
from marsls_keras.runs.records import EnvironmentRecord
from marsls_keras.runs.run import Run, read_history
from marsls_keras.tuning.out_of_fold import collect, pool_tiles
from marsls_keras.view_sets import of_windows, views_of

if TYPE_CHECKING:
    from marsls_keras.report import RunReport


def report(names: Sequence[str], runs: Path, out: Path | None, data: Path | None, ledger: Path | None = None) -> Path:
    """Write one HTML page about one or more runs, over their finished folds, with the leaderboard's scores.

    Args:
        names: Names of the runs.
        runs: Folder of the runs.
        out: The page; report.html in the first run by default.
        data: Data folder; that of each run by default.
        ledger: The ledger of submissions; `LEDGER`, if it exists, by default.

    Returns:
        The path of the page.

    Raises:
        InputError: If a run is missing or has no finished fold, or its data are gone, or the ledger is missing (if
            asked for) or damaged.

    Example:
        >>> report(["default"], Path("runs"), None, None)  # doctest: +SKIP
        PosixPath('runs/default/report.html')
    """
    opened = [Run.open(run_folder(runs, name)) for name in names]
    path = out or decision_path(opened[:1]).with_name("report.html")
    from marsls_keras.report import Answer, write_report  # with Matplotlib

    lines = answers(ledger or LEDGER) if ledger or LEDGER.exists() else []
    scored = [
        Answer(line["zip"], line["phase"], line["score"], line["expected"], line["interval"])
        for line in lines
        if line["score"] is not None
    ]
    gathered = [_gather(run, data) for run in opened]
    with stage("Drawing the report"):
        write_report(gathered, path, scored)
    return path


def _gather(run: Run, data: Path | None) -> RunReport:
    found = [run.fold(fold) for fold in range(run.splits.folds)]
    folds = [number for number, fold in enumerate(found) if fold.finished]
    if not folds:
        raise InputError(f"Run {run.name} has no finished fold yet: {found[0].trouble}")
    from marsls_keras.report import FoldReport, RunReport

    decision = read_decision([run], folds)
    pool = pool_tiles(run, data)
    followed = (decision or plain_decision([run])).fit(pool.refs)
    isolated = (followed.purpose or Purpose.REGION) is Purpose.REGION
    oof = collect([run], pool, views_of(followed.view_set), folds, isolated)
    among = None
    if isolated and oof.geographic and of_windows(followed.view_set):
        among = among_neighbours([run], pool, followed.replace(weights=None), folds)
    # The weights of an ensemble's decision do not apply to a single run.
    probability = oof.probability(followed.view_set, averaging=followed.averaging)
    return RunReport(
        name=run.name,
        config=(run.path / "config.yaml").read_text(encoding="utf-8"),
        fingerprint=run.fingerprint,
        folds=[
            FoldReport(
                fold=fold,
                rows=read_history(run.fold_path(fold) / "history.csv"),
                metrics=run.metrics(fold),
                environment=read_record(run.fold_path(fold) / "environment.json", EnvironmentRecord),
            )
            for fold in folds
        ],
        missing=[fold.trouble for fold in found if fold.trouble],
        decision=decision,
        refs=oof.tiles.refs,
        held_out_by=oof.folds,
        blocks=oof.blocks.tolist(),
        images=oof.tiles.images,
        valid=oof.tiles.valid,
        bands=oof.tiles.bands,
        masks=oof.tiles.masks,
        probability=probability,
        predicted=followed.segment(probability, oof.places),
        among_neighbours=among,
        study=read_record(searched, StudyRecord) if (searched := run.path / "search" / "study.json").exists() else None,
    )
