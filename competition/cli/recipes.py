"""The command `marsls recipes`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from competition.cli.options import AsJson, next_line


def recipes(as_json: AsJson = False) -> None:
    """List the recipes: what each is for, how long it takes, and what it reaches.

    Example:
        ```sh
        marsls recipes
        ```
    """
    from competition.console import show, show_json, text_table
    from marsls_keras.config import describe_recipes

    rows = describe_recipes()
    if as_json:
        show_json(rows)
        return
    show(text_table("Recipes", ["name", "purpose", "time of a fold", "score"], [list(row.values()) for row in rows]))
    show(next_line("train", ("--config", "default"), ("--fold", 0)))
