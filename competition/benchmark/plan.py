"""Plan a benchmark: the configuration of each row, in blocks and with regions held out, and the jobs that it needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from competition.recipe_parts import require_parts
from marsls_keras.bands.derived import DERIVED
from marsls_keras.bands.names import ALL
from marsls_keras.config import Config, Exponential, Step, parse_config
from marsls_keras.config.tables import ResultTable, TableRow
from marsls_keras.datasets import RELEASES
from marsls_keras.errors import InputError, listing
from marsls_keras.models.catalogue import require_packages

PARTITIONS = {"blocks": "blocks", "regions": "geographic"}
"""How tiles are held out, with the value of `data.cv`: blocks of neighbours, or whole regions."""


@dataclass(frozen=True)
class Job:
    """A piece of work for one process: train a fold and count its predictions, or measure a network's speed.

    Attributes:
        key: Identifies the work by all that its result depends on.
        kind: "fold" or "speed".
        run: Name of the run that it works in.
        config: The configuration.
        words: What it is, for messages.
        fold: The fold to train; 0 for a speed.
        predictions: The view sets and thresholds to predict the held-out tiles with, from `prediction`.

    Example:
        >>> Job("a1-0", "fold", "unet-blocks-a1", Config(), "U-Net, blocks, seed 0, fold 0", 0, ("identity:0.5",)).fold
        0
    """

    key: str
    kind: str
    run: str
    config: Config
    words: str
    fold: int = 0
    predictions: tuple[str, ...] = ()


def prediction(row: TableRow) -> str:
    """Return how a row predicts, as one word: its view set and threshold.

    Example:
        >>> prediction(TableRow(name="A", views="flips", threshold=0.51))
        'flips:0.51'
    """
    return f"{row.views}:{row.threshold:g}"


@dataclass(frozen=True)
class Plan:
    """What a benchmark trains: rows of a table, folds and seeds.

    Attributes:
        table: The table.
        rows: Its rows that are shown.
        changes: Changes of every row, by dotted key, such as those of --set.
        release: Release of the data; None before it is known, when nothing depends on bands.
        folds: Numbers of the folds; None for all.
        seeds: Number of seeds, which count from 0.
        epochs: Epochs of every row; None for those of the recipe.
        partitions: How tiles are held out, from `PARTITIONS`.

    Example:
        >>> from marsls_keras.config.tables import load_table
        >>> table = load_table("marslsnet-3")
        >>> plan = Plan(table, table.rows[:2], {}, "mmls_v1", (0,), epochs=3)
        >>> [job.words for job in plan.jobs()][1]
        'MarsLS-Net (S-3), regions, seed 0, fold 0'
    """

    table: ResultTable
    rows: tuple[TableRow, ...]
    changes: Mapping[str, Any]
    release: str | None
    folds: tuple[int, ...] | None = None
    seeds: int = 1
    epochs: int | None = None
    partitions: tuple[str, ...] = tuple(PARTITIONS)

    @cached_property
    def offered(self) -> tuple[TableRow, ...]:
        """The rows that can be trained."""
        return tuple(row for row in self.rows if row.not_offered is None)

    @cached_property
    def full(self) -> dict[str, Config]:
        """Configuration of each row with all epochs of the recipe, by name."""
        return {
            row.name: self.table.configuration(row, self.release or "", {"training.seed": 0, **self.changes})
            for row in self.offered
        }

    def config(self, row: TableRow, partition: str = "blocks", seed: int = 0) -> Config:
        """Return the configuration that a row is trained with."""
        found = self.full[row.name] if self.epochs is None else shortened(self.full[row.name], self.epochs)
        return _with(found, {"data": {"cv": PARTITIONS[partition]}, "training": {"seed": found.training.seed + seed}})

    def folds_of(self, row: TableRow) -> tuple[int, ...]:
        """Return the folds of a row."""
        return tuple(range(self.full[row.name].data.folds)) if self.folds is None else self.folds

    def job(self, row: TableRow, partition: str, seed: int, fold: int) -> Job:
        """Return the job of one fold of a row; rows that are trained alike share it."""
        config = self.config(row, partition, seed)
        key = training_key(config)
        used = {prediction(other) for other in self.offered if training_key(self.config(other, partition, seed)) == key}
        words = f"{row.name}, {partition}, seed {seed}, fold {fold}"
        run = f"{config.model.name}-{partition}-{key[:10]}"
        return Job(f"{key}-{fold}", "fold", run, config, words, fold, tuple(sorted(used)))

    def jobs(self) -> list[Job]:
        """Return the jobs of all folds, each once, fold after fold and row after row, so that rows fill up alike."""
        found: dict[str, Job] = {}
        for seed in range(self.seeds):
            for fold in sorted({fold for row in self.offered for fold in self.folds_of(row)}):
                for row in self.offered:
                    for partition in self.partitions:
                        if fold in self.folds_of(row):
                            job = self.job(row, partition, seed, fold)
                            found.setdefault(job.key, job)
        return list(found.values())

    def speed(self, row: TableRow) -> Job:
        """Return the job that measures the speed of a row's network, which does not depend on epochs, fold and seed."""
        config = _with(self.full[row.name], {"data": {"cv": "blocks"}, "training": {"epochs": 1, "swa_epochs": 0}})
        key = f"{training_key(config)}-speed"
        return Job(key, "speed", f"{config.model.name}-speed-{key[:10]}", config, f"speed of {row.name}")

    def speeds(self) -> list[Job]:
        """Return the jobs that measure speeds, each once."""
        return list({job.key: job for job in map(self.speed, self.offered)}.values())

    def notes(self) -> list[str]:
        """Return sentences about what the table is of, and how it is less than the recipe."""
        full = next(iter(self.full.values()))
        found = []
        if self.epochs is not None and self.epochs != full.training.epochs:
            found.append(
                f"Epochs of every row: {self.epochs}, where the recipe has {full.training.epochs}, "
                "with its schedule shortened alike: these are not the figures of a full training."
            )
        if self.folds is not None and self.folds != tuple(range(full.data.folds)):
            found.append(f"Only fold {', '.join(map(str, self.folds))} of {full.data.folds} was trained.")
        if self.changes:
            found.append(f"Changed in every row: {', '.join(f'{key}={value}' for key, value in self.changes.items())}.")
        return [*found, *self.table.remarks]

    def sections(self) -> list[Config]:
        """Return a configuration for each way that tiles are divided into folds."""
        found: dict[str, Config] = {}
        for row in self.offered:
            for partition in self.partitions:
                for seed in range(self.seeds):
                    config = self.config(row, partition, seed)
                    data = config.data.model_dump(mode="json", exclude={"bands", "normalization"})
                    found.setdefault(json.dumps([data, config.training.seed]), config)
        return list(found.values())

    def require(self) -> None:
        """Raise an error if a row cannot be trained as it is configured, before anything is read or built.

        Raises:
            InputError: If a network, an option or a loss is unknown, a package is missing, the data lack a band, or a
                fold does not exist; the row is named.
        """
        works: list[str] = []
        wrong: dict[str, str] = {}
        for row in self.offered:
            try:
                _require_row(self.config(row), self.release, self.folds)
                works.append(row.name)
            except InputError as error:
                wrong[row.name] = str(error)
        if wrong:
            name, reason = next(iter(wrong.items()))
            others = f"\nThese can be trained, each with --rows:{listing(works)}" if works else ""
            raise InputError(f"Row {name}: {reason}{others}")


def _require_row(config: Config, release: str | None, folds: Sequence[int] | None) -> None:
    require_parts(config)
    if release is not None:
        require_bands(config.data.bands, release)
    require_packages(config.model.name, config.model.options)
    for fold in folds or ():
        if fold >= config.data.folds:
            raise InputError(f"--folds {fold}: there is no such fold; data.folds is {config.data.folds}.")


def require_bands(bands: Sequence[str], release: str) -> None:
    """Raise an error if tiles of a release lack one of the bands, or what one is derived from.

    Raises:
        InputError: If they do.

    Example:
        >>> require_bands(["all", "roughness"], "mmls_v2")
        >>> require_bands(["ndvi"], "mmls_v2")
        Traceback (most recent call last):
            ...
        marsls_keras.errors.InputError: data.bands: tiles of mmls_v2 have no nir, which ndvi needs. ...
    """
    own = RELEASES[release].bands
    for band in bands:
        for source in DERIVED[band].sources if band in DERIVED else (band,):
            if band != ALL and source not in own:
                needs = f", which {band} needs" if source != band else ""
                raise InputError(
                    f"data.bands: tiles of {release} have no {source}{needs}. They have {', '.join(own)}; "
                    "choose among them with --set data.bands=[…]."
                )


def shortened(config: Config, epochs: int) -> Config:
    """Return a configuration with fewer or more epochs, its schedule stretched in proportion.

    A step every 30 of 100 epochs becomes one every 3 of 10, and warm-up, exponential decay and the epochs of stochastic
    weight averaging follow likewise.

    Example:
        >>> config = parse_config({"training": {"epochs": 100, "schedule": {"name": "step", "every": 30}}}, "mine")
        >>> shortened(config, 10).training.schedule.every
        3
    """
    training = config.training
    share = epochs / training.epochs
    schedule = training.schedule
    if isinstance(schedule, Step):
        schedule = schedule.model_copy(update={"every": max(1, round(schedule.every * share))})
    elif isinstance(schedule, Exponential):
        schedule = schedule.model_copy(update={"rate": schedule.rate / share})
    changed = {
        "epochs": epochs,
        "schedule": schedule.model_dump(),
        "warmup_epochs": training.warmup_epochs * share,
        "swa_epochs": min(epochs, round(training.swa_epochs * share)),
    }
    return _with(config, {"training": changed})


def _with(config: Config, changes: Mapping[str, Mapping[str, Any]]) -> Config:
    """Return a configuration with some keys of its sections changed, validated again."""
    values = config.model_dump(mode="json")
    for section, changed in changes.items():
        values[section] |= changed
    return parse_config(values, "of a row")


def training_key(config: Config) -> str:
    """Return a hash of all of a configuration that its training depends on, that is without how it predicts.

    Example:
        >>> training_key(Config()) == training_key(Config(inference={"views": "d4"}))
        True
    """
    values = config.model_dump(mode="json", exclude={"inference"})
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
