"""The command `marsls predict`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from competition.cli.options import AUTO, AsJson, Folds, Release, Runs, parse_folds, run_names


def predict(
    run: Annotated[list[str], Argument(help="Name of the run, or of several to average.", autocompletion=run_names)],
    images: Annotated[Path, Option(help="Folder of image tiles.")],
    out: Annotated[Path, Option(help="Folder to write to.")],
    folds: Folds = None,
    release: Release = AUTO,
    mosaic: Annotated[bool, Option("--mosaic", help="Also join all tiles to one GeoTIFF.")] = False,
    uncertainty: Annotated[
        bool, Option("--uncertainty", help="Also write the variance over the ensemble and the views, and the entropy.")
    ] = False,
    overwrite: Annotated[
        bool, Option("--overwrite", help="First remove the rasters that an earlier predict wrote to --out.")
    ] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Write probability and mask of every tile of a folder as TIFFs, with the tile's georeferencing.

    Example:
        ```sh
        marsls predict default --images phase2 --out predicted --mosaic
        ```
    """
    from competition.commands.predict import PredictRequest
    from competition.commands.predict import predict as write_predictions
    from competition.console import show, show_json

    request = PredictRequest(run, images, out, runs, parse_folds(folds), release.value, mosaic, uncertainty, overwrite)
    result = write_predictions(request)
    if as_json:
        show_json(result)
    else:
        *folders, last = result["folders"]
        show(
            f"{result['tiles']} tiles to {', '.join(folders)} and {last}, {result['foreground_ratio']:.1%} landslide.",
            *result["mosaics"],
        )
        show("Next: open them in a GIS such as QGIS.")
