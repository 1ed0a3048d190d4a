"""Predict with an ensemble: average probabilities or logits over runs, folds and views, one member in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from marsls_keras.backend import backend
from marsls_keras.data.decoded.checks import without_data
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.splits import Fold
from marsls_keras.errors import InputError, listing
from marsls_keras.inference.align import align
from marsls_keras.inference.averaging import gather, shares, spread
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.member import Member, load_member
from marsls_keras.inference.sliding_window import predict_tiles
from marsls_keras.inference.uncertainty import RunningVariance
from marsls_keras.models import has_detection
from marsls_keras.runs.run import Run
from marsls_keras.view_sets import views_of


class Prediction(NamedTuple):
    """Prediction of N tiles by an ensemble.

    Attributes:
        probability: Mean landslide probability, float32 (N, H, W).
        seen: Number of tiles that some member was trained on.
        leaked: Images of the tiles that every member was trained on.
        landslide: Mean probability that there is any landslide in a tile, float32 (N,); None unless every member has a head for it.
        variance: Population variance of the landslide probability over the members and views that predict a tile, by their weights, float32
            (N, H, W) in [0, 0.25]; of probabilities, whatever is averaged. None unless asked for.

    Example:
        >>> Prediction(np.zeros((2, 64, 64), np.float32), seen=0, leaked=[], landslide=None).variance is None
        True
    """

    probability: np.ndarray
    seen: int
    leaked: list[str]
    landslide: np.ndarray | None
    variance: np.ndarray | None = None


def predict_ensemble(
    runs: Sequence[Run],
    folds: Sequence[Fold],
    tiles: Tiles,
    views: Sequence[str],
    say: Callable[[str], None] = lambda line: None,
    run_weights: Mapping[str, float] | None = None,
    averaging: str = "probability",
    prepare: Callable[[Member], Member] = lambda member: member,
    number: int | None = None,
    uncertainty: bool = False,
) -> Prediction:
    """Predict tiles with all members and views, and average.

    A tile that a member was trained on (by content, whatever its name and orientation) is left to the members that were not: otherwise the
    prediction of labelled tiles would be better than that of new ones, and their score a lie. Where every member was, all of them predict
    it, and the tile is named in `leaked`. Weights count among the members that predict a tile; those of a run of weight 0 are not asked.

    Args:
        runs: Runs whose folds are the members.
        folds: Folds of each run.
        tiles: The tiles, N of them.
        views: Names of views.
        say: Told which member predicts.
        run_weights: Weight of each run by its name, that of every one of its folds; equal ones by default.
        averaging: What is averaged, "probability" or "logit".
        prepare: What is done with a member before it predicts.
        number: How many tiles, the first ones, are predicted; windows see the others, too. All by default.
        uncertainty: Whether `variance` is wanted, too.

    Raises:
        InputError: If a fold is not finished, or a network cannot take tiles of this size.

    Example:
        >>> predict_ensemble([Run.open("runs/base")], [0, 1], tiles, views_of("d4")).probability.shape  # doctest: +SKIP
        (12, 128, 128)
    """
    hashes, shape = tiles.hashes[:number], tiles.masks[:number].shape
    share = shares(run_weights, [run.name for run in runs])
    runs = [run for run in runs if run.name in share]
    members = [(run, fold) for run in runs for fold in folds]
    first = tiles.subset(range(len(hashes))) if number is not None else tiles
    trained = np.array([run.splits.trained_on(fold, first) for run, fold in members])  # (M, N)
    leaked = trained.all(axis=0)
    used = ~trained | leaked
    total, landslide = np.zeros(shape, np.float32), np.zeros(len(hashes), np.float32)
    detecting = all(has_detection(run.config.model.name, run.config.model.options) for run in runs)
    variance = RunningVariance(shape) if uncertainty else None
    if uncertainty and (alone := int((used.sum(axis=0) * len(views) == 1).sum())):
        say(f"One member in one view predicts {alone} of {len(hashes)} tiles, so the variance there is 0.")
    backend()
    for (run, fold), chosen in zip(members, used, strict=True):
        index = np.flatnonzero(chosen)
        if len(index):
            say(f"Run {run.name}, fold {fold}: {len(index)} tiles in {len(views)} view(s) …")
            for seen in predict_tiles(prepare(load_member(run, fold)), tiles, index, views):
                total[index] += spread(seen.probability, averaging) * np.float32(share[run.name])
                if variance is not None:
                    variance.add(index, seen.probability, share[run.name])
                if seen.landslide is not None:
                    landslide[index] += seen.landslide * np.float32(share[run.name])
    whole = (np.array([share[run.name] for run, _ in members]) @ used * len(views)).astype(np.float32)
    total /= whole[:, None, None]
    named = [str(tiles.refs[i].image) for i in np.flatnonzero(leaked)]
    return Prediction(
        probability=gather(total, averaging),
        seen=int(trained.any(axis=0).sum()),
        leaked=named,
        landslide=landslide / whole if detecting else None,
        variance=None if variance is None else variance.result(),
    )


def predict_decided(
    runs: Sequence[Run],
    folds: Sequence[Fold],
    tiles: Tiles,
    decision: Decision,
    say: Callable[[str], None] = lambda line: None,
    alignment: str | None = None,
    number: int | None = None,
    uncertainty: bool = False,
) -> Prediction:
    """Predict tiles with the views, weights and averaging of a decision; other arguments as of `predict_ensemble`.

    With an `alignment`, "statistics" or "batchnorm", each member is fitted to the tiles that are predicted first. A tile without any data
    has probability 0, whatever the members make of it, and is named.

    Example:
        >>> decision = decision_of(runs, [0, 1], print).fit(tiles.refs, print)  # doctest: +SKIP
        >>> masks = decision.segment(predict_decided(runs, [0, 1], tiles, decision).probability, tiles.refs)  # doctest: +SKIP
    """

    def prepare(member: Member) -> Member:
        return member if alignment is None else align(member, tiles.subset(range(len(tiles.refs[:number]))), alignment)

    views = views_of(decision.view_set)
    found = predict_ensemble(runs, folds, tiles, views, say, decision.run_weights, decision.averaging, prepare, number, uncertainty)
    if blank := [i for i in range(len(found.probability)) if without_data(tiles, i)]:
        names = listing([str(tiles.refs[i].image) for i in blank], 5)
        say(f"Warning: {len(blank)} tiles have no data in any band; their masks are background:{names}")
        found.probability[blank] = 0
        if found.landslide is not None:
            found.landslide[blank] = 0
    return found


def refuse_leaked(leaked: list[str]) -> None:
    """Refuse to score tiles that every member was trained on.

    Raises:
        InputError: If there are any; some are named.

    Example:
        >>> refuse_leaked([])
    """
    if leaked:
        raise InputError(f"{len(leaked)} tiles were in the training data of every fold that is used:{listing(leaked, 5)}")


def tell_leaked(leaked: list[str], say: Callable[[str], None]) -> None:
    """Warn of tiles that every member was trained on.

    Example:
        >>> tell_leaked([], print)
    """
    if leaked:
        what = f"{len(leaked)} tiles, such as {leaked[0]}, were in the training data of every fold that is used"
        say(f"Warning: {what}; a score on them says nothing about new tiles.")
