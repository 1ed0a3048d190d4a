"""The command `marsls models`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from competition.cli.options import AsJson
from marsls_keras.errors import InputError


def models(
    name: Annotated[str | None, Argument(help="Only this network, with its options.")] = None, as_json: AsJson = False
) -> None:
    """List the networks: family, parameters for seven bands, what they need, and the recipes that train them.

    Example:
        ```sh
        marsls models
        marsls models unet
        ```
    """
    from competition.console import show, show_json, table, text_table
    from marsls_keras.models import describe_models
    from marsls_keras.suggestions import did_you_mean

    rows = describe_models()
    if name is not None:
        known = [row["name"] for row in rows]
        if name not in known:
            raise InputError(f"There is no network {name!r}.{did_you_mean(name, known)} marsls models lists them.")
        rows = [row for row in rows if row["name"] == name]
    if as_json:
        show_json(rows)
        return
    cells = [
        [
            row["name"],
            row["family"],
            f"{row['parameters']:,}",
            ", ".join(row["packages"]) or "–",
            row["weights"] or "–",
            ", ".join(row["recipes"]) or "–",
        ]
        for row in rows
    ]
    columns = ["name", "family", "parameters", "needs", "pretrained weights", "recipes"]
    show(text_table("Models", columns, cells, numbers=["parameters"]))
    if name is not None:
        show(table("Options", ["", "default"], [[option, str(value)] for option, value in rows[0]["options"].items()]))
        return
    show("Options of one: marsls models NAME. Without a recipe: marsls train --config unet --set model.name=NAME")
