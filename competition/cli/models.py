"""The command `marsls models`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from competition.cli.options import AsJson, next_line


def models(as_json: AsJson = False) -> None:
    """List the networks: family, parameters for seven bands, what they need, and the recipes that train them.

    Example:
        ```sh
        marsls models
        ```
    """
    from competition.console import show, show_json, text_table
    from marsls_keras.models import describe_models

    rows = describe_models()
    if as_json:
        show_json(rows)
        return
    cells = [
        [
            row["name"],
            row["family"],
            f"{row['parameters']:,}",
            "; ".join([*row["packages"], *([f"weights: {row['weights']}"] if row["weights"] else [])]) or "–",
            ", ".join(row["recipes"]) or "–",
            row["options"],
        ]
        for row in rows
    ]
    columns = ["name", "family", "parameters", "needs", "recipes", "options"]
    show(text_table("Models", columns, cells, numbers=["parameters"]))
    show(next_line("train", ("--config", "unet"), ("--set", "model.name=NAME")))
