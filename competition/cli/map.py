"""The command `marsls map`: parse the arguments, call the function, print its result."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from competition.cli.options import AUTO, AsJson, Folds, Release, RunNames, Runs, parse_folds


def map_(
    raster: Annotated[str, Argument(help="Raster: any file that GDAL reads, a VRT, or a URL.")],
    out: Annotated[Path, Option("-o", "--out", help="Folder to write to.")],
    run: RunNames = None,
    folds: Folds = None,
    release: Release = AUTO,
    stride: Annotated[
        int | None, Option(help="Pixels between windows, for views of single tiles. Default: half a tile.")
    ] = None,
    uncertainty: Annotated[
        bool, Option("--uncertainty", help="Also map the variance over members and views, and the entropy.")
    ] = False,
    polygons: Annotated[
        bool, Option("--polygons/--no-polygons", help="Write the landslides as polygons, too (needs the extra geo).")
    ] = True,
    stac: Annotated[bool, Option("--stac", help="Also write a STAC item of the map.")] = False,
    workers: Annotated[
        int | None, Option(min=1, help="Processes, each with its own GPU or its share of the cores; with --ray actors.")
    ] = None,
    shard: Annotated[
        str | None, Option(help="i/n: compute the i-th of n parts only, i from 0 on, as a task of a batch system.")
    ] = None,
    ray: Annotated[str | None, Option(help="Compute on a Ray cluster: auto, or its address.")] = None,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Remove an earlier map in --out first; nothing else.")
    ] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Map the landslides of a raster of any size: probability, mask, and an inventory of polygons.

    The raster holds the bands of the tiles that the runs were trained on. Give the same command again to go on with a
    map that was stopped.

    Example:
        ```sh
        marsls map valles.tif --run default -o valles
        ```
    """
    from competition.commands.map import MapCommand
    from competition.commands.map import map_raster as write_map
    from competition.console import show, show_json

    command = MapCommand(
        raster,
        out,
        run or ["default"],
        runs,
        parse_folds(folds),
        release.value,
        stride,
        uncertainty,
        polygons,
        stac,
        workers,
        shard,
        ray,
        overwrite,
    )
    result = write_map(command)
    if as_json:
        show_json(result)
        return
    if result["missing"]:
        show(
            f"{result['computed']} shards computed, {result['missing']} of {result['shards']} are missing.",
            "Next: the other parts, then the same command without --shard, which makes the map of them.",
        )
        return
    show(f"{result['width']} x {result['height']} pixels mapped:", *result["products"].values())
    if found := result["inventory"]:
        edge = f", {found['at_edge']} at the edge of the map" if found["at_edge"] else ""
        show(
            f"{found['landslides']} landslides, {found['area_km2']:.4g} km²{edge}.",
            f"Next: marsls evaluate {shlex.quote(str(out))} --polygons TRUTH.gpkg",
        )
