"""The command `marsls tile`: parse the arguments, call the function, print its result."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from competition.cli.options import AsJson
from marsls_keras.errors import InputError

_SPLITS = ("train", "val", "test")


def tile(
    composite: Annotated[str, Argument(help="Raster with seven bands, as marsls stack writes it.")],
    labels: Annotated[
        Path, Option(help="Mask raster, in which 1 is landslide, or vector file of polygons (extra geo).")
    ],
    out: Annotated[Path, Option("--out", "-o", help="Folder to write; new or empty.")],
    isolated_east_of: Annotated[
        float | None, Option(help="Map x of a boundary: what lies to the east of it is kept apart as isolated test.")
    ] = None,
    keep_empty: Annotated[bool, Option("--keep-empty", help="Keep tiles without landslide.")] = False,
    shares: Annotated[str, Option(help="Percent of the tiles for train, val and test.")] = "70,10,20",
    size: Annotated[int, Option(min=16, help="Height and width of a tile in pixels.")] = 128,
    seed: Annotated[int, Option(min=0, help="Equal seeds give equal splits.")] = 0,
    layer: Annotated[str | None, Option(help="Layer of the vector file, if it has several of polygons.")] = None,
    as_json: AsJson = False,
) -> None:
    """Cut a raster and its landslide labels to a dataset, as MMLSv2 was made.

    Labels are brought to the raster's grid, and tiles are partitioned in blocks of 2 x 2, stratified by landslide.

    Example:
        ```sh
        marsls tile composite.tif --labels inventory.gpkg --isolated-east-of -4200000 -o data
        ```
    """
    from competition.console import show, show_json, table
    from marsls_keras.mapping.tile_dataset import TileCutting, tile_dataset

    cutting = TileCutting(size, isolated_east_of, keep_empty, parse_shares(shares), seed, layer)
    result = tile_dataset(composite, labels, out, cutting)
    if as_json:
        show_json(result)
        return
    show(result["labels"])
    columns = ["split", "images", "Avg_FG (%)", "Std_FG (%)", "Min_FG (%)", "Max_FG (%)"]
    rows = [
        [split, row["images"], *(f"{row[key]:.2f}" for key in ("avg", "std", "min", "max"))]
        for split, row in result["splits"].items()
    ]
    show(table(f"{out}: {result['release']}, {size} x {size} pixels", columns, rows))
    show(
        f"Left out: {result['empty']} tiles without landslide, {result['without_data']} without data. "
        f"The distribution of landslide is in {out / 'foreground.png'}, the partition in {out / 'partition.json'}."
    )
    show(f"Next: marsls {shlex.join(['check', str(out)])}")


def parse_shares(text: str) -> dict[str, float]:
    """Parse the percentages of train, val and test.

    Raises:
        InputError: If the text is not three numbers that add up to 100, the first above 0.

    Example:
        >>> parse_shares("70,10,20")
        {'train': 0.7, 'val': 0.1, 'test': 0.2}
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != len(_SPLITS) or min(numbers) < 0 or not numbers[0] or abs(sum(numbers) - 100) > 1e-9:
        raise InputError(f"--shares {text}: expected percent of train, val and test that add up to 100, as 70,10,20.")
    return {split: number / 100 for split, number in zip(_SPLITS, numbers, strict=True)}
