"""The command `marsls synth`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from competition.cli.options import Form, next_line

_PUBLIC = Form("mmls_v2")


def synth(
    out: Annotated[Path, Argument(help="Folder to create.")],
    release: Annotated[Form, Option(help="Dataset whose files and folders are imitated.")] = _PUBLIC,
    train: Annotated[int, Option(help="Number of training tiles.")] = 40,
    val: Annotated[int, Option(help="Number of validation tiles.")] = 8,
    test: Annotated[int, Option(help="Number of test tiles.")] = 12,
    size: Annotated[int, Option(help="Height and width of a tile in pixels.")] = 128,
    seed: Annotated[int, Option(help="Random seed; the same seed gives the same tiles.")] = 0,
) -> None:
    """Write a folder of synthetic tiles, to try all commands without data.

    They imitate tiles of Valles Marineris, or one of the datasets of Earth.

    Example:
        ```sh
        marsls synth data --train 48 --test 16
        ```
    """
    from competition.console import show
    from marsls_keras.data.synthetic.mars import write_dataset

    counts = write_dataset(out, release.value, train, val, test, size, seed)
    show(f"{out}: " + ", ".join(f"{number} {split} tiles" for split, number in counts.items()))
    show(next_line("check", str(out)))
