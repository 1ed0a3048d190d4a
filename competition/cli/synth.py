"""The command `marsls synth`: parse the arguments, call the function, print its result."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from competition.cli.options import Form, next_line
from marsls_keras.errors import InputError

_PUBLIC = Form("mmls_v2")


def synth(
    out: Annotated[Path, Argument(help="Folder to create.")],
    release: Annotated[Form, Option(help="Dataset whose files and folders are imitated.")] = _PUBLIC,
    train: Annotated[int, Option(help="Number of training tiles.")] = 40,
    val: Annotated[int, Option(help="Number of validation tiles.")] = 8,
    test: Annotated[int, Option(help="Number of test tiles.")] = 12,
    size: Annotated[int, Option(help="Height and width of a tile in pixels.")] = 128,
    seed: Annotated[int, Option(help="Random seed; the same seed gives the same tiles.")] = 0,
    mosaic: Annotated[
        str | None,
        Option(metavar="WxH", help="Make rasters and an inventory of a region of W x H pixels, instead of tiles."),
    ] = None,
) -> None:
    """Write a folder of synthetic tiles, or of rasters of a region, to try all commands without data.

    They imitate tiles of Valles Marineris, or one of the datasets of Earth.

    Example:
        ```sh
        marsls synth data --train 48 --test 16
        ```
    """
    from competition.console import show

    if mosaic is not None:
        from marsls_keras.mapping.synthetic_region import write_region

        made = write_region(out, *parse_size(mosaic), seed)
        show(
            f"{out}: {made['landslides']} landslides on {made['landslide_share']:.1%} of the region; "
            f"{', '.join(made['files'])}"
        )
        rasters = [str(out / name) for name in made["files"] if name.endswith(".tif")]
        words = ["stack", *rasters, "--like", rasters[0], "--out", str(out / "composite.tif")]
        show(f"Next: marsls {shlex.join(words)}")
        return
    from marsls_keras.data.synthetic.mars import write_dataset

    counts = write_dataset(out, release.value, train, val, test, size, seed)
    show(f"{out}: " + ", ".join(f"{number} {split} tiles" for split, number in counts.items()))
    show(next_line("check", str(out)))


def parse_size(text: str) -> tuple[int, int]:
    """Parse width and height, such as 1500x1100.

    Raises:
        InputError: If the text is something else.

    Example:
        >>> parse_size("1500x1100")
        (1500, 1100)
    """
    found = re.fullmatch(r"(\d{1,9})[x×](\d{1,9})", text)
    if found is None:
        raise InputError(f"--mosaic {text}: expected width x height in pixels, such as 1500x1100.")
    return int(found[1]), int(found[2])
