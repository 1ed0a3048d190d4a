"""The command `marsls evaluate`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from competition.cli.column_notes import notes
from competition.cli.options import AUTO, AsJson, Folds, OwnData, Release, Runs, next_line, parse_folds, run_names
from marsls_keras.errors import InputError
from marsls_keras.inference.purpose import Purpose


class _Split(StrEnum):
    oof = "oof"
    train = "train"
    val = "val"
    test = "test"


def evaluate(
    run: Annotated[
        str,
        Argument(help="Name of the run; with --polygons, the folder that marsls map wrote.", autocompletion=run_names),
    ],
    split: Annotated[
        _Split,
        Option(
            help="Tiles to score. oof: each training tile, by the fold that was not trained on it; or a labelled split."
        ),
    ] = _Split.oof,
    folds: Folds = None,
    data: OwnData = None,
    release: Release = AUTO,
    purpose: Annotated[
        Purpose | None,
        Option(
            "--for",
            help="Where the tiles lie: in a new region, or among published, labelled tiles.",
        ),
    ] = None,
    polygons: Annotated[
        Path | None, Option(help="True landslides, such as a GeoPackage, to compare with the polygons of a map.")
    ] = None,
    layer: Annotated[str | None, Option(help="Layer of --polygons; by default the only one with polygons.")] = None,
    worst: Annotated[int, Option(min=0, help="Number of tiles with the lowest scores to list.")] = 5,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Score a run on labelled tiles, pooled and per tile, with a 95 % interval; or a map against true polygons.

    With --polygons: detection rate and false alarms by class of area, IoU, and distance of the outlines.

    Example:
        ```sh
        marsls evaluate default --split val
        marsls evaluate maps/valles --polygons inventory.gpkg
        ```
    """
    if polygons is not None:
        return _evaluate_map(Path(run), polygons, layer, as_json)
    if layer is not None:
        raise InputError("--layer names a layer of --polygons, which is missing.")
    from competition.commands.evaluate import EvaluateRequest
    from competition.commands.evaluate import evaluate as score_run
    from competition.console import bounds, detection_table, regions_line, score_table, show, show_json

    aim, chosen = purpose and purpose.value, parse_folds(folds)
    result = score_run(EvaluateRequest(run, split.value, runs, chosen, data, release.value, aim))
    if as_json:
        show_json(result)
        return
    title = (
        f"{run} on {result['tiles']} tiles of {split.value}, views {result['views']}, threshold {result['threshold']:g}"
    )
    rows = [("pooled", result["scores"], result["interval"])]
    if among := result["among_neighbours"]:
        rows = [
            ("isolated, as a new region", *rows[0][1:]),
            ("windows see all neighbours", among["scores"], among["interval"]),
        ]
    show(score_table(title, rows))
    show(notes("miou", *(["oof"] if split is _Split.oof else []), "views", "interval"))
    if split is _Split.oof and not result["folds_are_regions"]:
        show(
            "Folds that are no regions say nothing about a new region, which scores lower: "
            "data.cv geographic or areas holds regions out."
        )
    if result["interval"] is None:
        show(f"{bounds(None).capitalize()}.")
    if result["folds_are_regions"]:
        show(regions_line(result["regions"]))
    if result["detection"]:
        show(
            detection_table(
                f"Tiles with landslide, threshold {result['detection']['threshold']:g}", result["detection"]
            )
        )
    if worst:
        show(
            score_table(
                "Worst tiles",
                [(t["tile"], t, None) for t in sorted(result["per_tile"], key=lambda t: t["miou"])[:worst]],
            )
        )
    show(next_line("report", run, ("--runs", runs)))


def _evaluate_map(found: Path, truth: Path, layer: str | None, as_json: bool) -> None:
    """Score the polygons of a map against true ones."""
    from competition.console import area_table, landslide_lines, score_table, show, show_json
    from marsls_keras.mapping.detection import evaluate_polygons

    result = evaluate_polygons(found, truth, layer)
    if as_json:
        show_json(result)
        return
    show(
        area_table(
            f"{result['found']} landslides of {result['inventory']}, {result['true']} true ones", result["classes"]
        )
    )
    show(score_table("Pixels of the mapped ground", [("pooled", result["scores"], None)]))
    show(landslide_lines(result))
