"""The command `marsls train`: parse the arguments, call the function, print its result."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

from typer import Option

from competition.cli.options import Runs, next_line
from marsls_keras.errors import InputError


def train(
    config: Annotated[
        str | None, Option(help="Name of a recipe, or a YAML file; default, or what the run was begun with.")
    ] = None,
    data: Annotated[Path | None, Option(envvar="MARSLS_DATA", help="Data folder; data, or that of the run.")] = None,
    fold: Annotated[str, Option(help="Number of a fold, all, or full: the refit that holds nothing out.")] = "all",
    run: Annotated[str | None, Option(help="Name of the run; the configuration's by default.")] = None,
    resume: Annotated[bool, Option("--resume", help="Go on with an interrupted fold.")] = False,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Train anew; the earlier fold is kept as fold_<k>.old.")
    ] = False,
    epochs: Annotated[
        int | None,
        Option(
            help="Number of epochs; with --resume also more than the run was begun with; "
            "of fold full by default that of the folds."
        ),
    ] = None,
    pseudo: Annotated[
        Path | None,
        Option(
            metavar="DIR", help="Images that fold full trains on, too, labelled by the finished folds (transductive)."
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        Option(
            help="How certain a pixel of --pseudo has to be to count as landslide or as background; 0.9 by default."
        ),
    ] = None,
    pretrained: Annotated[
        str | None, Option(metavar="FILE", help="First weights: FILE, pip:efficientnet_lite0, hf:REPOSITORY.")
    ] = None,
    deterministic: Annotated[
        bool, Option("--deterministic", help="The same result to the bit, at some cost in speed.")
    ] = False,
    devices: Annotated[int, Option(min=1, help="GPUs of this machine that share each batch.")] = 1,
    jobs: Annotated[
        int, Option(min=1, help="Folds to train at once, each on a GPU of its own, or sharing the cores.")
    ] = 1,
    settings: Annotated[list[str] | None, Option("--set", help="section.key=value; repeatable.")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Train one fold or all of them, or refit on all tiles.

    Example:
        ```sh
        marsls train --config unet --data data --fold 0
        marsls train --run unet --fold 0 --resume
        ```
    """
    environments: list[dict[str, str]] = []
    if jobs > 1 and devices > 1:
        raise InputError(
            f"--jobs {jobs} and --devices {devices}: give one of them. Folds at once have one device each."
        )
    if jobs > 1 and fold == "all":
        from competition.processes import device_environments

        environments = device_environments(jobs)
        # This process trains nothing and must leave the GPUs to those that do.
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    from competition.commands.recipe_epochs import recipe_of_trial
    from competition.commands.train import TrainRequest
    from competition.commands.train import train as train_folds
    from competition.console import score_table, show

    settings = [
        *(settings or []),
        *(["training.deterministic=true"] if deterministic else []),
        *([f"model.pretrained={json.dumps(pretrained)}"] if pretrained is not None else []),  # JSON quotes as YAML does
    ]
    if resume and overwrite:
        raise InputError("--resume goes on with a fold and --overwrite begins it anew: give one of them.")
    request = TrainRequest(
        config,
        settings,
        data,
        fold,
        runs,
        name=run,
        resume=resume,
        overwrite=overwrite,
        devices=devices,
        environments=environments,
        epochs=epochs,
        pseudo=pseudo,
        confidence=confidence,
    )
    trained, results = train_folds(request)
    if fold == "full":
        done = results[0]
        show(f"{trained.name}: refit on all tiles, {done['epochs']} epoch(s), weights {done['best_weights']}.")
        show("It held nothing out, so it has no score.")
        show(
            next_line(
                "submit",
                ("--run", None if trained.name == "default" else trained.name),
                ("--folds", "full"),
                ("--runs", runs),
            )
        )
        return
    if results:
        rows = [
            (f"fold {r['fold']}, epoch {r['best_epoch'] + 1} ({r['best_weights']})", r["scores"], None) for r in results
        ]
        show(score_table(f"{trained.name}: held-out tiles at threshold 0.5", rows))
    left = [str(k) for k in range(trained.splits.folds) if not trained.fold(k).finished]
    named = [("--run", None if trained.name == "default" else trained.name), ("--runs", runs)]
    if left:
        show(f"Left to train: fold {', '.join(left)}.")
        trial = recipe_of_trial(trained) is not None  # such a run needs --epochs again
        show(next_line("train", *named, ("--epochs", trained.config.training.epochs if trial else None)))
    else:
        show(next_line("tune", *named))
