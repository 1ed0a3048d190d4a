"""The command `marsls stack`: parse the arguments, call the function, print its result."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from competition.cli.options import AsJson


def stack(
    out: Annotated[Path, Option("--out", "-o", help="GeoTIFF to write.")],
    rasters: Annotated[
        list[str] | None, Argument(help="Rasters, whose bands are told by description, colour or file name.")
    ] = None,
    like: Annotated[
        str | None, Option(help="Raster whose grid of pixels the composite gets. Default: that of the band red.")
    ] = None,
    band: Annotated[
        list[str] | None, Option(help="Where a band is: NAME=FILE, or NAME=FILE:2 for its band 2; repeat.")
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace the file --out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stack rasters of any grid, resolution and projection to one seven-band raster.

    The bands are red, green, blue, dem, slope, thermal and gray; slope is computed from dem if it is not given.

    Example:
        ```sh
        marsls stack viking.tif thermal.tif --band dem=hrsc.tif --band gray=ctx.tif --like viking.tif -o composite.tif
        ```
    """
    from competition.commands.stack import stack_rasters
    from competition.console import show, show_json, table

    result = stack_rasters(rasters or [], band or [], like, out, overwrite)
    if as_json:
        show_json(result)
        return
    show(f"{out}: {result['grid']}.")
    columns = ["band", "from", "resampling", "pixel", "with data"]
    rows = [
        [name, band["source"], band["resampling"], f"{band['pixel']:.3g}", f"{band['data']:.1%}"]
        for name, band in result["bands"].items()
    ]
    show(table("Bands (size of a source pixel in pixels of the composite)", columns, rows))
    show(f"Next: marsls {shlex.join(['tile', str(out), '--labels', 'INVENTORY.gpkg', '--out', 'data'])}")
