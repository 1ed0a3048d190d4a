"""The command `marsls trial`."""

from __future__ import annotations

import typer

from marsls_keras.backend import backend


def trial() -> None:
    """Train one trial of a search; `tune training` starts it and tells it what to do."""
    backend()
    from competition.commands.train import train
    from competition.search.trial import run_trial

    raise typer.Exit(run_trial(train))
