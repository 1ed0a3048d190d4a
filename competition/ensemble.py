"""Ensembles: probabilities averaged over runs, folds and views, one member in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from marsls_keras.data.integrity import Tiles
from marsls_keras.data.store import select
from marsls_keras.errors import InputError, listing
from marsls_keras.inference.predict import load_member, predict_views
from marsls_keras.models import has_detection
from marsls_keras.training.run_dir import Run


class Prediction(NamedTuple):
    """What an ensemble says about N tiles.

    Attributes:
        probability: Mean landslide probability, float32 (N, H, W).
        seen: Number of tiles that some member was trained on.
        leaked: Images of the tiles that every member was trained on.
        landslide: Mean probability that there is any landslide in a tile, float32 (N,); None unless every member has a head for it.
    """

    probability: np.ndarray
    seen: int
    leaked: list[str]
    landslide: np.ndarray | None


def predict_ensemble(
    runs: Sequence[Run], folds: Sequence[int], tiles: Tiles, views: Sequence[str], say: Callable[[str], None] = lambda line: None
) -> Prediction:
    """Predict tiles with all members and views.

    A tile that a member was trained on (by content, whatever its name) is left to the members that were not: otherwise the prediction of
    labelled tiles would be better than that of new ones, and their score a lie. Where every member was, all of them predict it, and the
    tile is named in `leaked`.

    Args:
        runs: Runs whose folds are the members.
        folds: Folds of each run.
        tiles: The tiles, N of them.
        views: Names of views.
        say: Told which member predicts.
    """
    members = [(run, fold) for run in runs for fold in folds]
    trained = np.array([[digest in run.splits.training_hashes(fold) for digest in tiles.hashes] for run, fold in members])  # (M, N)
    leaked = trained.all(axis=0)
    used = ~trained | leaked
    total, landslide = np.zeros(tiles.masks.shape, np.float32), np.zeros(len(tiles), np.float32)
    detecting = all(has_detection(run.config.model.name, run.config.model.options) for run in runs)
    for (run, fold), chosen in zip(members, used, strict=True):
        index = np.flatnonzero(chosen)
        if len(index):
            say(f"Run {run.name}, fold {fold}: {len(index)} tiles in {len(views)} view(s) …")
            for seen in predict_views(load_member(run, fold), select(tiles.images, index), views, tiles.bands):
                total[index] += seen.probability
                if seen.landslide is not None:
                    landslide[index] += seen.landslide
    number = (used.sum(axis=0) * len(views)).astype(np.float32)
    total /= number[:, None, None]
    named = [str(tiles.refs[i].image) for i in np.flatnonzero(leaked)]
    return Prediction(total, int(trained.any(axis=0).sum()), named, landslide / number if detecting else None)


def refuse_leaked(leaked: list[str]) -> None:
    """Refuse to score tiles that every member was trained on.

    Raises:
        InputError: If there are any; some are named.
    """
    if leaked:
        raise InputError(f"{len(leaked)} tiles were in the training data of every fold that is used:{listing(leaked, 5)}")


def tell_leaked(leaked: list[str], say: Callable[[str], None]) -> None:
    """Warn of tiles that every member was trained on."""
    if leaked:
        what = f"{len(leaked)} tiles, such as {leaked[0]}, were in the training data of every fold that is used"
        say(f"Warning: {what}; a score on them says nothing about new tiles.")
