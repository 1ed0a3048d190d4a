"""The command `marsls trial`: parse the arguments, call the function, print its result."""

from __future__ import annotations

import typer

from marsls_keras.backend import import_backend


def trial() -> None:
    """Train one trial of a search, as `marsls search` requests on standard input.

    Example:
        ```sh
        marsls trial < request.json
        ```
    """
    import_backend()
    from competition.commands.train import TrainRequest, train
    from competition.search.trial import run_trial

    raise typer.Exit(run_trial(lambda **asked: train(TrainRequest(**asked))))
