"""Ensembles: probabilities averaged over runs, folds and views, one member in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from marsls_keras.data.integrity import Tiles
from marsls_keras.errors import InputError, listing
from marsls_keras.inference.predict import load_member, predict_views
from marsls_keras.training.run_dir import Run


def predict_ensemble(
    runs: Sequence[Run],
    folds: Sequence[int],
    tiles: Tiles,
    views: Sequence[str],
    say: Callable[[str], None] = lambda line: None,
) -> tuple[np.ndarray, int]:
    """Return the mean landslide probability of tiles over all members and views.

    A tile that a member was trained on (by content, whatever its name) is left to the members that were not: otherwise the prediction of
    labelled tiles would be better than that of new ones, and their score a lie.

    Args:
        runs: Runs whose folds are the members.
        folds: Folds of each run.
        tiles: The tiles, N of them.
        views: Names of views.
        say: Told which member predicts.

    Returns:
        float32 (N, H, W), and the number of tiles that some member was trained on.

    Raises:
        InputError: If a tile was in the training data of every member.
    """
    total = np.zeros(tiles.masks.shape, np.float32)
    members = np.zeros(len(tiles), np.int64)
    for run in runs:
        for fold in folds:
            seen = run.splits.training_hashes(fold)
            index = np.array([i for i, digest in enumerate(tiles.hashes) if digest not in seen], dtype=int)
            if not len(index):
                continue
            say(f"Run {run.name}, fold {fold}: {len(index)} tiles in {len(views)} view(s) …")
            for probability in predict_views(load_member(run, fold), tiles.images[index], views):
                total[index] += probability
            members[index] += 1
    trained_on = [str(tiles.refs[i].image) for i in np.flatnonzero(members == 0)]
    if trained_on:
        raise InputError(f"{len(trained_on)} tiles were in the training data of every fold that is used:{listing(trained_on, 5)}")
    total /= (members * len(views)).astype(np.float32)[:, None, None]
    return total, int((members < len(runs) * len(folds)).sum())
