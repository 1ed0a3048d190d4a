"""The command `marsls benchmark`: parse the arguments, call the function, print its result."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from competition.cli.options import AsJson, Runs, parse_folds
from marsls_keras.backend import import_backend
from marsls_keras.errors import RunError

logger = logging.getLogger(__name__)


def benchmark(
    table: Annotated[str | None, Option(help="A paper's table, such as mmlsv2-2, or a YAML file like it.")] = None,
    models: Annotated[str | None, Option(help="Networks instead of a table, such as unet,mars_ls_net.")] = None,
    config: Annotated[
        str | None, Option(help="Recipe that --models trains every network with; unet by default.")
    ] = None,
    data: Annotated[Path, Option(envvar="MARSLS_DATA", help="Data folder.")] = Path("data"),
    rows: Annotated[list[str] | None, Option("--rows", help="Only this row; repeatable.")] = None,
    folds: Annotated[str | None, Option(help="Only these folds, such as 0,1.")] = None,
    epochs: Annotated[int | None, Option(min=1, help="Epochs of every row; the recipe's by default.")] = None,
    seeds: Annotated[int, Option(min=1, help="Number of seeds.")] = 1,
    budget: Annotated[
        float | None, Option(min=0.1, metavar="MINUTES", help="Choose the epochs so that all takes about this long.")
    ] = None,
    name: Annotated[str | None, Option(help="Name of the benchmark; that of the table by default.")] = None,
    jobs: Annotated[int, Option(min=1, help="Trainings at once, each on a GPU of its own, or sharing the cores.")] = 1,
    storage: Annotated[
        str | None, Option(help="Journal file or URL that several machines share, as for search.")
    ] = None,
    settings: Annotated[list[str] | None, Option("--set", help="section.key=value in every row; repeatable.")] = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Train the rows of a paper's table, or several networks, and write them side by side with the published figures.

    Each row is trained in blocks and with whole regions held out. The same command goes on where it stopped; given
    again while one runs, also on another machine, it shares the work.

    Example:
        ```sh
        marsls benchmark --table mmlsv2-2 --budget 60
        marsls benchmark --models unet,mars_ls_net --epochs 5 --folds 0
        ```
    """
    from competition.benchmark.request import BenchmarkRequest, plan_of
    from marsls_keras.data.index.dataset import Dataset

    request = BenchmarkRequest(
        data,
        runs,
        table,
        None if models is None else [model.strip() for model in models.split(",")],
        config,
        settings or [],
        rows,
        name,
        parse_folds(folds),
        epochs,
        seeds,
        budget,
        storage,
        jobs,
    )
    plan_of(request)  # wrong input is answered before Optuna and Matplotlib are imported
    Dataset.open(data)
    from competition.commands.benchmark import benchmark as run
    from competition.console import show, show_json

    done = run(request)
    if as_json:
        show_json({"rows": done.rows, "notes": done.notes, "files": [str(path) for path in done.files]})
    else:
        from competition.benchmark.write import tables

        show(*tables(done.plan.table, done.rows, done.notes))
        show(f"Written: {', '.join(map(str, done.files))}")
    if done.stopped is not None:
        logger.info("Stopped. The same command goes on.")
        raise typer.Exit(128 + done.stopped)
    reasons = list(dict.fromkeys(reason for row in done.rows for reason in row["failed"]))
    if reasons:
        raise RunError(f"{done.left} trainings failed; the same command tries them again. {reasons[0]}")
    if done.left:
        logger.info(f"{done.left} trainings are still done by others; the same command then shows them, too.")
    logger.info(f"Next: open {done.folder / 'table.html'} in a web browser.")


def benchmark_step() -> None:
    """Do one job of a benchmark, as `benchmark` requests on standard input.

    Example:
        ```sh
        marsls benchmark-step < request.json
        ```
    """
    import_backend()
    from competition.benchmark.step import run_step
    from competition.commands.train import TrainRequest, train

    raise typer.Exit(run_step(lambda **asked: train(TrainRequest(**asked))))
