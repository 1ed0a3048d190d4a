"""What `marsls benchmark` was asked for: check it without data, and make a plan of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from competition.benchmark.plan import Plan
from marsls_keras.config.keys import apply_setting
from marsls_keras.config.tables import ResultTable, TableRow, load_table, table_names
from marsls_keras.data.splits import require_held_out
from marsls_keras.errors import InputError, listing
from marsls_keras.models.registry import entry
from marsls_keras.runs.names import require_plain
from marsls_keras.suggestions import did_you_mean


@dataclass(frozen=True)
class BenchmarkRequest:
    """Arguments of `marsls benchmark`.

    Attributes:
        data: Data folder.
        runs: Folder of the runs; the benchmark's own is in its folder `benchmarks`.
        table: Name of a table, or a YAML file.
        models: Names of networks instead of a table.
        recipe: Recipe of `models`; "unet" by default.
        settings: Changes of every row, "section.key=value".
        rows: Names of the rows to train; all by default.
        name: Name of the benchmark; that of the table by default.
        folds: Folds to train; all by default.
        epochs: Epochs; those of the recipe by default.
        seeds: Number of seeds.
        budget: Minutes that all trainings may take, from which the epochs follow; None for no limit.
        storage: Journal file or URL; a journal in the benchmark's folder by default.
        jobs: Trainings at once.

    Example:
        >>> BenchmarkRequest(data=Path("data"), runs=Path("runs"), models=["unet", "mars_ls_net"]).seeds
        1
    """

    data: Path
    runs: Path
    table: str | None = None
    models: Sequence[str] | None = None
    recipe: str | None = None
    settings: Sequence[str] = ()
    rows: Sequence[str] | None = None
    name: str | None = None
    folds: Sequence[int] | None = None
    epochs: int | None = None
    seeds: int = 1
    budget: float | None = None
    storage: str | None = None
    jobs: int = 1


def table_of(request: BenchmarkRequest) -> tuple[str, ResultTable]:
    """Return the name of a benchmark and its table.

    Raises:
        InputError: If there is neither a table nor networks, or both, or a recipe beside a table, or if one of them is
            unknown.

    Example:
        >>> table_of(BenchmarkRequest(Path("data"), Path("runs"), models=["unet"]))[1].rows[0].name
        'unet'
    """
    if request.table is not None and request.models is not None:
        raise InputError("--table and --models: give one of them. A table names its networks.")
    if request.table is None and request.models is None:
        raise InputError(
            "marsls benchmark needs a table or networks: --table NAME, one of "
            f"{', '.join(table_names())}; or --models a,b, of those that marsls models lists."
        )
    if request.table is not None:
        table = load_table(request.table)
        if request.recipe is not None:
            raise InputError(
                f"--config {request.recipe}: a table has a recipe of its own, {table.recipe}. "
                "Leave --config out, change keys with --set, or write a table with another recipe."
            )
        return request.name or Path(request.table).stem, table
    models, recipe = list(request.models or ()), request.recipe or "unet"
    if not all(models):
        raise InputError("--models: a name is missing. Give names with commas between them, such as unet,mars_ls_net.")
    for model in models:
        try:
            entry(model)
        except InputError as error:
            raise InputError(f"--models: {error}") from None
    if twice := [model for model in models if models.count(model) > 1]:
        raise InputError(f"--models: {twice[0]} is given twice.")
    rows = tuple(TableRow(name=model, settings={"model.name": model}) for model in models)
    title = f"Networks with the recipe {Path(recipe).stem}"
    source = "Networks chosen with --models"
    return request.name or "models", ResultTable(title=title, source=source, recipe=recipe, rows=rows)


def chosen_rows(table: ResultTable, names: Sequence[str] | None) -> tuple[TableRow, ...]:
    """Return the rows of a table with the given names; all if None.

    Raises:
        InputError: If a row is unknown, or none of them can be trained.

    Example:
        >>> [row.name for row in chosen_rows(load_table("dualswin-9"), ["Hybrid"])]
        ['Hybrid']
    """
    known = [row.name for row in table.rows]
    for name in names or ():
        if name not in known:
            raise InputError(f"--rows {name}: there is no such row.{did_you_mean(name, known)} Known:{listing(known)}")
    rows = tuple(row for row in table.rows if names is None or row.name in names)
    if all(row.not_offered for row in rows):
        raise InputError(f"--rows: none of these can be trained: {rows[0].name}: {rows[0].not_offered}")
    return rows


def plan_of(request: BenchmarkRequest) -> tuple[str, Plan]:
    """Return the name of a benchmark and its plan, after checking all that needs no data.

    Raises:
        InputError: If table, networks, rows, settings or folds are wrong.

    Example:
        >>> name, plan = plan_of(BenchmarkRequest(Path("data"), Path("runs"), models=["unet"], epochs=3))
        >>> name, len(plan.jobs())
        ('models', 10)
    """
    name, table = table_of(request)
    require_plain(name, "--name")
    require_held_out(request.folds)
    if request.epochs is not None and request.budget is not None:
        raise InputError("--epochs and --budget: give one of them. A budget sets the epochs.")
    changes: dict[str, Any] = {}
    for setting in request.settings:
        nested: Any = {}
        apply_setting(nested, setting)
        key = setting.partition("=")[0].strip()
        for part in key.split("."):
            nested = nested[part]
        changes[key] = nested
    if taken := [key for key in changes if key in ("data.cv", "training.epochs")]:
        instead = {"data.cv": "a benchmark holds out blocks and regions", "training.epochs": "give it as --epochs"}
        raise InputError(f"--set {taken[0]}: {instead[taken[0]]}.")
    folds = None if request.folds is None else tuple(sorted(set(request.folds)))
    rows = chosen_rows(table, request.rows)
    plan = Plan(table, rows, changes, None, folds, request.seeds, request.epochs)
    plan.require()
    return name, plan
