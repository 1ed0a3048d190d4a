"""The command `marsls train`: parse the arguments, call the function, print its result."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

from typer import Option

from competition.cli.column_notes import notes
from competition.cli.options import Runs, Settings, next_line, recipe_names, run_names
from marsls_keras.errors import InputError


def train(
    config: Annotated[
        str | None,
        Option(
            metavar="RECIPE",
            help="Name of a recipe, or a YAML file. By default the recipe default, or that of an existing run.",
            autocompletion=recipe_names,
        ),
    ] = None,
    data: Annotated[
        Path | None, Option(envvar="MARSLS_DATA", help="Data folder; by default data, or that of an existing run.")
    ] = None,
    fold: Annotated[
        str, Option(metavar="K", help="Fold to train: its number, all, or full for training on all tiles.")
    ] = "all",
    run: Annotated[
        str | None,
        Option(metavar="NAME", help="Name of the run; by default that of the recipe.", autocompletion=run_names),
    ] = None,
    resume: Annotated[bool, Option("--resume", help="Continue a training that was interrupted.")] = False,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Train the fold again; the earlier result is kept as fold_<k>.old.")
    ] = False,
    epochs: Annotated[
        int | None,
        Option(
            help="Number of epochs; with --resume it may be raised. By default that of the recipe; for fold full, the "
            "mean of the folds' best epochs."
        ),
    ] = None,
    pseudo: Annotated[
        Path | None,
        Option(
            metavar="DIR",
            help="Unlabelled images on which fold full is trained as well, with labels predicted by the folds.",
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        Option(help="Least probability of landslide or background for a pixel of --pseudo to count; by default 0.9."),
    ] = None,
    pretrained: Annotated[
        str | None,
        Option(
            metavar="FILE", help="Pretrained weights of the encoder: a file, pip:efficientnet_lite0, or hf:REPOSITORY."
        ),
    ] = None,
    deterministic: Annotated[
        bool, Option("--deterministic", help="Make the result reproducible to the bit; slower.")
    ] = False,
    devices: Annotated[int, Option(min=1, help="Number of GPUs that share each batch.")] = 1,
    jobs: Annotated[
        int, Option(min=1, help="Folds to train at the same time, each on its own GPU, or sharing the CPU cores.")
    ] = 1,
    settings: Settings = None,
    runs: Runs = Path("runs"),
) -> None:
    """Train the folds of a recipe, one of them, or one network on all tiles.

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
        show(notes("miou", "weights", "epoch"))
    left = [str(k) for k in range(trained.splits.folds) if not trained.fold(k).finished]
    named = [("--run", None if trained.name == "default" else trained.name), ("--runs", runs)]
    if left:
        show(f"Left to train: fold {', '.join(left)}.")
        trial = recipe_of_trial(trained) is not None  # such a run needs --epochs again
        show(next_line("train", *named, ("--epochs", trained.config.training.epochs if trial else None)))
    else:
        show(next_line("tune", *named))
