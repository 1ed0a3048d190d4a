"""The command `marsls new`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from competition.cli.options import next_line


class _Kind(StrEnum):
    """What a plug-in adds."""

    network = "network"
    loss = "loss"
    dataset = "dataset"


def new(
    kind: Annotated[_Kind, Argument(help="What it adds.")],
    name: Annotated[str, Argument(help="Name of the file, without .py.")],
    out: Annotated[Path, Option(help="Folder for the files.")] = Path(),
) -> None:
    """Write a network, loss or dataset of your own to start from: a commented file, its test, and a recipe.

    Example:
        ```sh
        marsls new network my_net
        ```
    """
    from competition.commands.new import write_plugin
    from competition.console import show

    written = write_plugin(kind.value, name, out)
    show("Written: " + ", ".join(map(str, written)))
    show(f"Test it: pytest {written[1]}")
    if kind is _Kind.dataset:
        show(f"Commands know it with MARSLS_PLUGINS={written[0].resolve()}")
    else:
        show(next_line("train", ("--config", written[2]), ("--fold", 0)))
