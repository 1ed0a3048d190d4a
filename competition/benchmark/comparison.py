"""Compare the rows of a benchmark from the results of its jobs: scores with intervals, differences, times, memory."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from competition.benchmark.plan import Plan, prediction
from marsls_keras.config.tables import TableRow
from marsls_keras.counts import SCORES, Counts
from marsls_keras.intervals import difference_interval, region_spread, score_interval
from marsls_keras.view_sets import views_of


@dataclass(frozen=True)
class Counted:
    """Counts of the tiles that trainings of a row held out, with what each training took.

    Attributes:
        counts: Confusion counts, each field (N,), one number a tile and seed.
        blocks: Block of each tile, (N,).
        folds: Fold of each tile, (N,).
        seeds: Seed of each tile, (N,).
        done: Seed and fold of each training.
        seconds: Seconds of each training.
        memory: Peak memory of the processes in GiB, by place.

    Example:
        >>> one = np.ones(2, int)
        >>> Counted(Counts(one, one, one, one), one, one, one, ((0, 0),), (3.0,), {}).seconds
        (3.0,)
    """

    counts: Counts
    blocks: np.ndarray
    folds: np.ndarray
    seeds: np.ndarray
    done: tuple[tuple[int, int], ...]
    seconds: tuple[float, ...]
    memory: dict[str, float]

    def only(self, done: Sequence[tuple[int, int]]) -> Counted:
        """Return the part of some trainings, in the order of seed and fold."""
        pairs = zip(self.seeds.tolist(), self.folds.tolist(), strict=True)
        keep = np.array([pair in set(done) for pair in pairs], bool)
        fields = (self.counts.tp, self.counts.fp, self.counts.fn, self.counts.tn)
        counts = Counts(*(np.asarray(field)[keep] for field in fields))
        return Counted(
            counts, self.blocks[keep], self.folds[keep], self.seeds[keep], tuple(done), self.seconds, self.memory
        )


def gather(plan: Plan, row: TableRow, partition: str, found: Mapping[str, Mapping[str, Any]]) -> Counted | None:
    """Collect the counts of all trainings of a row that are done; None if none is.

    Args:
        plan: The plan.
        row: A row that is offered.
        partition: How tiles were held out.
        found: Results by key of their job.

    Example:
        >>> gather(plan, plan.rows[0], "blocks", results(study, plan.jobs())).done  # doctest: +SKIP
        ((0, 0), (0, 1))
    """
    parts: list[tuple[int, int, Mapping[str, Any]]] = []
    for seed in range(plan.seeds):
        for fold in plan.folds_of(row):
            job = plan.job(row, partition, seed, fold)
            if job.key in found:
                parts.append((seed, fold, found[job.key]))
    if not parts:
        return None
    tiles = [result["tiles"][prediction(row)] for *_, result in parts]
    numbers = [len(part["block"]) for part in tiles]
    memory: dict[str, float] = {}
    for *_, result in parts:
        memory = {place: max(memory.get(place, 0.0), value) for place, value in result["memory"].items()} or memory
    return Counted(
        Counts(*(np.concatenate([part[field] for part in tiles]) for field in ("tp", "fp", "fn", "tn"))),
        np.concatenate([part["block"] for part in tiles]),
        np.repeat([fold for _, fold, _ in parts], numbers),
        np.repeat([seed for seed, *_ in parts], numbers),
        tuple((seed, fold) for seed, fold, _ in parts),
        tuple(result["seconds"] for *_, result in parts),
        memory,
    )


def score(found: Counted, first: Counted | None) -> dict[str, Any]:
    """Score the held-out tiles of a row, pooled over all pixels of its folds and seeds.

    Args:
        found: The counts of the row.
        first: Those of the first row, for the difference; None for the first row itself.

    Returns:
        "scores"; "intervals" of 95 %, by leaving out blocks, None with one block; "seeds": mean and standard deviation
        of the mIoU over seeds, None with one seed; "difference" of the mIoU to the first row and its interval, paired
        by block, over the trainings that both have; "regions", the spread over folds; "trainings", and "seconds", the
        mean time of one; "memory".

    Example:
        >>> tp = np.array([30, 25, 40])
        >>> one = np.zeros(3, int)
        >>> found = Counted(Counts(tp, tp, tp, tp), np.array([0, 1, 2]), one, one, ((0, 0),), (9.0,), {})
        >>> round(score(found, None)["scores"]["miou"], 4)
        0.3333
    """
    each = [_of(found, found.seeds == seed).scores()["miou"] for seed in np.unique(found.seeds)]
    shared = [] if first is None else [pair for pair in found.done if pair in set(first.done)]
    difference = None
    if first is not None and shared:
        after, before = found.only(shared), first.only(shared)
        gain = after.counts.pooled().scores()["miou"] - before.counts.pooled().scores()["miou"]
        interval = difference_interval(after.counts, before.counts, after.blocks)
        difference = {"miou": gain, "interval": interval, "trainings": len(shared)}
    return {
        "scores": found.counts.pooled().scores(),
        "intervals": {name: score_interval(found.counts, found.blocks, name) for name in SCORES},
        "seeds": None if len(each) < 2 else {"mean": statistics.mean(each), "deviation": statistics.stdev(each)},
        "difference": difference,
        "regions": region_spread(found.counts, found.folds),
        "trainings": len(found.done),
        "seconds": statistics.mean(found.seconds),
        "memory": found.memory,
    }


def _of(found: Counted, chosen: np.ndarray) -> Counts:
    fields = (found.counts.tp, found.counts.fp, found.counts.fn, found.counts.tn)
    return Counts(*(np.asarray(field)[chosen] for field in fields)).pooled()


def compare(plan: Plan, found: Mapping[str, Mapping[str, Any]], failed: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the rows of a benchmark's table, as plain values.

    Args:
        plan: The plan.
        found: Results by key of their job.
        failed: Reasons of the jobs that failed, by key.

    Returns:
        For each row "name", "views", "threshold", "note", "not_offered", "published", "blocks" and "regions" (from
        `score`, None without a training), "asked" (trainings of each), "speed" (None if it was not measured), and
        "failed" (the reasons, without repetition).

    Example:
        >>> from marsls_keras.config.tables import load_table
        >>> table = load_table("marslsnet-3")
        >>> rows = compare(Plan(table, table.rows, {}, "mmls_v1"), {}, {})
        >>> rows[0]["name"], rows[0]["blocks"], rows[0]["asked"]
        ('MarsLS-Net (S-3)', None, 5)
    """
    counted = {
        (row.name, partition): gather(plan, row, partition, found)
        for row in plan.offered
        for partition in plan.partitions
    }
    rows = []
    for row in plan.rows:
        made: dict[str, Any] = {
            "name": row.name,
            "views": row.views,
            "threshold": row.threshold,
            "note": row.note,
            "not_offered": row.not_offered,
            "published": row.published.model_dump(exclude_none=True),
            "blocks": None,
            "regions": None,
            "asked": 0,
            "speed": None,
            "failed": [],
        }
        if row.not_offered is None:
            jobs = [
                plan.job(row, partition, seed, fold)
                for partition in plan.partitions
                for seed in range(plan.seeds)
                for fold in plan.folds_of(row)
            ]
            made["asked"] = plan.seeds * len(plan.folds_of(row))
            made["failed"] = list(
                dict.fromkeys(failed[job.key] for job in [plan.speed(row), *jobs] if job.key in failed)
            )
            made["speed"] = _speed(found.get(plan.speed(row).key), row)
            for partition in plan.partitions:
                own = counted[row.name, partition]
                first = next((counted[other.name, partition] for other in plan.offered), None)
                is_first = row.name == plan.offered[0].name
                made[partition] = None if own is None else score(own, None if is_first else first)
        rows.append(made)
    return rows


def _speed(measured: Mapping[str, Any] | None, row: TableRow) -> dict[str, Any] | None:
    """Return the figures of a network's speed; the latency and speed of prediction are of all views of the row."""
    if measured is None:
        return None
    views = len(views_of(row.views))
    return {
        "parameters": measured["parameters"],
        "flops": None if measured["flops"] is None else measured["flops"] * views,
        "latency": measured["latency"] * views,
        "tiles_per_second": measured["inference"]["tiles_per_second"] / views,
        "training_tiles_per_second": measured["training_with_data"]["tiles_per_second"],
        "device": ", ".join(measured["environment"]["devices"]),
    }


def epochs_within(plan: Plan, found: Mapping[str, Mapping[str, Any]], tiles: int, minutes: float) -> tuple[int, float]:
    """Return the number of epochs for all rows with which a benchmark takes about a given time, and that time.

    The time is that of all trainings one after the other, from the measured speeds of each network. It is the same
    number for every row, at least 1, and at most the recipe's.

    Args:
        plan: The plan.
        found: Results of the jobs that measure speeds, by key.
        tiles: Number of tiles that are divided into folds.
        minutes: The time.

    Returns:
        The epochs, and the minutes that they are expected to take.

    Example:
        >>> epochs_within(plan, results(study, plan.speeds()), 306, 60)  # doctest: +SKIP
        (12, 57.3)
    """
    fixed = epoch = 0.0
    counted = set()
    for job_row in plan.offered:
        speed = found[plan.speed(job_row).key]
        folds = plan.full[job_row.name].data.folds
        each = (
            tiles * (1 - 1 / folds) / speed["training_with_data"]["tiles_per_second"]
            + tiles / folds / speed["inference"]["tiles_per_second"]
        )
        for partition in plan.partitions:
            for seed in range(plan.seeds):
                for fold in plan.folds_of(job_row):
                    key = plan.job(job_row, partition, seed, fold).key
                    if key not in counted:
                        counted.add(key)
                        epoch += each
                        fixed += _SETUP + speed["training"]["first_step_seconds"]
    most = min(plan.full[row.name].training.epochs for row in plan.offered)
    epochs = int(np.clip((60 * minutes - fixed) // epoch, 1, most))
    return epochs, (fixed + epochs * epoch) / 60


_SETUP = 15.0
"""Seconds of a training for starting a process, reading tiles, and predicting the held-out ones."""
