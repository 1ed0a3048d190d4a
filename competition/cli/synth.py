"""The command `marsls synth`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from competition.cli.options import Form

_PUBLIC = Form("mmls_v2")


def synth(
    out: Annotated[Path, Argument(help="Folder to make.")],
    release: Annotated[Form, Option(help="On-disk form of the tiles.")] = _PUBLIC,
    train: Annotated[int, Option(help="Training tiles.")] = 40,
    val: Annotated[int, Option(help="Validation tiles.")] = 8,
    test: Annotated[int, Option(help="Test tiles.")] = 12,
    size: Annotated[int, Option(help="Height and width in pixels.")] = 128,
    seed: Annotated[int, Option(help="Equal seeds give equal tiles.")] = 0,
) -> None:
    """Write a folder of synthetic tiles, to try all commands without data.

    They look like those of Valles Marineris, or have the form of a dataset of Earth.

    Example:
        ```sh
        marsls synth data --train 48 --test 16
        ```
    """
    from competition.console import show
    from marsls_keras.data.synthetic.mars import write_dataset

    counts = write_dataset(out, release.value, train, val, test, size, seed)
    show(f"{out}: " + ", ".join(f"{number} {split} tiles" for split, number in counts.items()))
