"""The command `marsls predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from competition.cli.options import AUTO, AlignTo, AsJson, Folds, Release, Runs, parse_folds


def predict(
    run: Annotated[list[str], Argument(help="One run, or several to average.")],
    images: Annotated[Path, Option(help="Folder of image tiles.")],
    out: Annotated[Path, Option(help="Folder to write to.")],
    folds: Folds = None,
    release: Release = AUTO,
    mosaic: Annotated[bool, Option("--mosaic", help="Also join all tiles to one GeoTIFF (needs the extra geo).")] = False,
    uncertainty: Annotated[bool, Option("--uncertainty", help="Also write the variance over members and views, and the entropy.")] = False,
    align: AlignTo = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Remove what an earlier predict wrote to --out first; nothing else.")] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Write probability and mask of every tile of a folder as TIFFs, with the tile's georeferencing."""
    from competition.commands import predict
    from competition.console import say, show, show_json

    chosen = parse_folds(folds), release.value
    result = predict.predict(run, runs, images, out, *chosen, mosaic, say, align and align.value, uncertainty, overwrite)
    if as_json:
        show_json(result)
    else:
        *folders, last = result["folders"]
        show(f"{result['tiles']} tiles to {', '.join(folders)} and {last}, {result['foreground_ratio']:.1%} landslide.", *result["mosaics"])
