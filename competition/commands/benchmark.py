"""Run a benchmark: measure the networks, train what is missing, and write the table."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout

from competition.benchmark.comparison import compare, epochs_within
from competition.benchmark.plan import PARTITIONS, Job, Plan
from competition.benchmark.request import BenchmarkRequest, plan_of
from competition.benchmark.worker import BenchmarkWorker, failures, open_study, results
from competition.benchmark.write import write_table
from competition.processes import worker_environments
from competition.search.storage import open_storage
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.fingerprint import fingerprint
from marsls_keras.data.load_folder import load_folder
from marsls_keras.data.splits import make_splits
from marsls_keras.datasets import RELEASES
from marsls_keras.errors import InputError, RunError
from marsls_keras.progress import stage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """Result of a benchmark.

    Attributes:
        folder: Folder of the benchmark.
        name: Its name.
        plan: What was planned.
        rows: The rows of the table, from `competition.benchmark.comparison.compare`.
        notes: Sentences that belong to the table.
        files: The files that were written.
        left: Trainings that are not done.
        stopped: The signal that ended it early, or None.

    Example:
        >>> benchmark(request).files  # doctest: +SKIP
        [PosixPath('runs/benchmarks/mmlsv2-2/table.md'), ...]
    """

    folder: Path
    name: str
    plan: Plan
    rows: list[dict[str, Any]]
    notes: list[str]
    files: list[Path]
    left: int
    stopped: int | None


def benchmark(request: BenchmarkRequest) -> Outcome:
    """Measure the networks of a table, train its rows in blocks and with regions held out, and write the table.

    What a benchmark of this name has done already is not done again. Several of these commands may run at once, also on
    several machines, if they share the storage.

    Raises:
        InputError: If table, networks, settings or data are wrong.
        RunError: If no training succeeded, or a file cannot be written.

    Example:
        >>> benchmark(BenchmarkRequest(Path("data"), Path("runs"), table="mmlsv2-2", budget=60))  # doctest: +SKIP
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name, plan = plan_of(request)
    tiles, sha256 = _tiles(request.data, plan)
    release = tiles.release
    plan = replace(plan, release=release)
    plan.require()
    plan, notes = _held_out(plan, tiles)
    if plan.table.data not in (None, release):
        theirs, ours = (RELEASES[other].title for other in (plan.table.data, release))
        notes.insert(0, f"The published figures are of {theirs}, ours of {ours}: they cannot be compared.")
        logger.warning(f"Warning: {notes[0]}")
    pool = len(make_splits(tiles, plan.sections()[0].data, 0).tiles)
    del tiles  # each job reads them itself
    alone, several = worker_environments(1), worker_environments(request.jobs, work="training")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # this process trains nothing, and must leave the GPUs to those that do
    folder = request.runs / "benchmarks" / name
    folder.mkdir(parents=True, exist_ok=True)
    storage = open_storage(request.storage or str(folder / "journal.log"))
    study = open_study(name, storage, sha256)

    def work(jobs: list[Job], environments: Sequence[Mapping[str, str]]) -> int | None:
        worker = BenchmarkWorker(study, storage, jobs, folder, request.data, environments)
        worker.run()
        return worker.stopped

    with _alone(folder):
        stopped = work(plan.speeds(), alone)
    if request.budget is not None and stopped is None:
        plan = _within(plan, results(study, plan.speeds()), failures(study, plan.speeds()), pool, request.budget, notes)
    jobs = plan.jobs()
    if stopped is None:
        logger.info(f"{len(jobs)} trainings, {len(results(study, jobs))} of them done, in {folder}.")
        stopped = work(jobs, several)
    every = [*plan.speeds(), *jobs]
    rows = compare(plan, results(study, every), failures(study, every))
    notes = [f"Ours: {pool} labelled tiles of {RELEASES[release].title}.", *plan.notes(), *notes]
    with stage("Writing the table"):
        files = write_table(folder, plan.table, rows, notes)
    left = len(jobs) - len(results(study, jobs))
    return Outcome(folder, name, plan, rows, notes, files, left, stopped)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock under which speeds are measured: one network after the other, on a machine as quiet as it gets."""
    lock = FileLock(folder / ".speed.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("Another command measures the speeds of this benchmark. Waiting for it …")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _tiles(root: Path, plan: Plan) -> tuple[Tiles, str]:
    """Return the tiles, without derived bands, and their fingerprint."""
    data = plan.sections()[0].data
    tiles = load_folder(root, data.model_copy(update={"bands": ("all",)}))
    return tiles, str(fingerprint(tiles, root)["sha256"])


def _held_out(plan: Plan, tiles: Tiles) -> tuple[Plan, list[str]]:
    """Divide the tiles into folds as all jobs will, and leave regions out if these tiles have none.

    Raises:
        InputError: If the tiles cannot be divided into blocks.
    """
    possible, notes = [], []
    for partition in PARTITIONS:
        part = replace(plan, partitions=(partition,))
        try:
            for config in part.sections():
                make_splits(tiles, config.data, config.training.seed)
            possible.append(partition)
        except InputError as error:
            if partition == "blocks":
                raise
            notes.append(f"No region could be held out: {error}")
            logger.warning(f"Warning: {notes[-1]}")
    return replace(plan, partitions=tuple(possible)), notes


def _within(
    plan: Plan,
    speeds: Mapping[str, Mapping[str, Any]],
    failed: Mapping[str, str],
    pool: int,
    minutes: float,
    notes: list[str],
) -> Plan:
    """Return the plan with the epochs that fit into a budget, and add a note about them.

    Raises:
        RunError: If the speed of a network could not be measured.
    """
    if failed:
        raise RunError(f"--budget needs the speed of every network: {next(iter(failed.values()))}")
    if any(plan.speed(row).key not in speeds for row in plan.offered):
        raise RunError("--budget needs the speed of every network, and another command still measures some. Try again.")
    epochs, expected = epochs_within(plan, speeds, pool, minutes)
    about = f"{expected:.0f}" if expected >= 10 else f"{expected:.1f}"
    notes.append(f"The epochs were chosen for a budget of {minutes:g} minutes; expected were {about}.")
    if expected > minutes:
        logger.warning(f"Warning: even one epoch takes more than --budget {minutes:g}: about {about} minutes.")
    else:
        logger.info(f"{epochs} epochs of every row fit into {minutes:g} minutes (about {about}).")
    return replace(plan, epochs=epochs)
