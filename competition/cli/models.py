"""The command `marsls models`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from competition.cli.options import AsJson


def models(as_json: AsJson = False) -> None:
    """List the networks and their parameter counts, for seven bands and default options.

    Example:
        ```sh
        marsls models
        ```
    """
    from competition.console import show, show_json, table
    from marsls_keras.models import describe_models

    rows = describe_models()
    if as_json:
        show_json(rows)
    else:
        show(
            table(
                "Models",
                ["name", "parameters", "trainable", "options"],
                [[r["name"], f"{r['parameters']:,}", f"{r['trainable']:,}", r["options"]] for r in rows],
            )
        )
