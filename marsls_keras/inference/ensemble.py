"""Ensemble prediction: average probabilities or logits over runs, folds and views, one member in memory at a time."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from marsls_keras.backend import import_backend
from marsls_keras.data.decoded.checks import without_data
from marsls_keras.data.splits import Fold
from marsls_keras.errors import InputError, listing
from marsls_keras.inference.averaging import gather, shares, spread
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.member import load_member
from marsls_keras.inference.prediction_inputs import PredictionInputs
from marsls_keras.inference.sliding_window import predict_tiles
from marsls_keras.inference.uncertainty import RunningVariance
from marsls_keras.models import has_detection
from marsls_keras.runs.run import Run
from marsls_keras.view_sets import views_of

logger = logging.getLogger(__name__)


class Prediction(NamedTuple):
    """Prediction of N tiles by an ensemble.

    Attributes:
        probability: Mean landslide probability, float32 (N, H, W).
        seen: Number of tiles that some member was trained on.
        leaked: Images of the tiles that every member was trained on.
        landslide: Mean probability that a tile contains any landslide, float32 (N,); None unless every member has a
            detection head.
        variance: Weighted population variance of the landslide probability over the members and views that predict a
            tile, float32 (N, H, W) in [0, 0.25]; of probabilities even if logits are averaged. None unless requested.

    Example:
        >>> Prediction(np.zeros((2, 32, 32), np.float32), seen=0, leaked=[], landslide=None).probability.shape
        (2, 32, 32)
    """

    probability: np.ndarray
    seen: int
    leaked: list[str]
    landslide: np.ndarray | None
    variance: np.ndarray | None = None


def predict_ensemble(
    runs: Sequence[Run],
    folds: Sequence[Fold],
    inputs: PredictionInputs,
    views: Sequence[str],
    run_weights: Mapping[str, float] | None = None,
    averaging: str = "probability",
    uncertainty: bool = False,
) -> Prediction:
    """Predict tiles with all members and views, and average the predictions.

    Members do not predict tiles that they were trained on, recognised by content in any orientation: otherwise the
    scores of labelled tiles would be optimistic. A tile that every member was trained on is predicted by all of them,
    and listed in `leaked`. Weights are normalised over the members that predict a tile. Runs of weight 0 do not
    predict.

    Args:
        runs: Runs whose folds are the members.
        folds: Folds of each run.
        inputs: The N tiles to predict, and the tiles around them that windows see.
        views: Names of views.
        run_weights: Weight of each run by name, used for each of its folds; equal by default.
        averaging: Quantity that is averaged, "probability" or "logit".
        uncertainty: Whether to compute `variance`.

    Raises:
        InputError: If a fold is not finished, or a network cannot take tiles of this size.

    Example:
        >>> inputs = PredictionInputs.alone(tiles)  # doctest: +SKIP
        >>> found = predict_ensemble([Run.open("runs/base")], [0, 1], inputs, views_of("d4"))  # doctest: +SKIP
        >>> found.probability.shape  # doctest: +SKIP
        (12, 128, 128)
    """
    tiles, number = inputs.tiles, inputs.number
    shape = (number, *tiles.masks.shape[1:])
    share = shares(run_weights, [run.name for run in runs])
    runs = [run for run in runs if run.name in share]
    members = [(run, fold) for run in runs for fold in folds]
    wanted = inputs.wanted
    trained = np.array([run.splits.trained_on(fold, wanted) for run, fold in members])  # (M, N)
    leaked = trained.all(axis=0)
    used = ~trained | leaked
    total, landslide = np.zeros(shape, np.float32), np.zeros(number, np.float32)
    detecting = all(has_detection(run.config.model.name, run.config.model.options) for run in runs)
    variance = RunningVariance(shape) if uncertainty else None
    if uncertainty and (alone := int((used.sum(axis=0) * len(views) == 1).sum())):
        logger.info(f"One member in one view predicts {alone} of {number} tiles, so the variance there is 0.")
    import_backend()
    for (run, fold), chosen in zip(members, used, strict=True):
        index = np.flatnonzero(chosen)
        if len(index):
            logger.info(f"Run {run.name}, fold {fold}: {len(index)} tiles in {len(views)} view(s) …")
            for seen in predict_tiles(load_member(run, fold), tiles, index, views):
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
    inputs: PredictionInputs,
    decision: Decision,
    uncertainty: bool = False,
) -> Prediction:
    """Predict tiles with the views, weights and averaging of a decision; arguments as in `predict_ensemble`.

    A tile without data in any band gets probability 0, and a warning names it.

    Example:
        >>> decision = decision_of(runs, [0, 1]).fit(inputs.refs)  # doctest: +SKIP
        >>> found = predict_decided(runs, [0, 1], inputs, decision)  # doctest: +SKIP
        >>> masks = decision.segment(found.probability, inputs.refs)  # doctest: +SKIP
    """
    views = views_of(decision.view_set)
    found = predict_ensemble(runs, folds, inputs, views, decision.run_weights, decision.averaging, uncertainty)
    if blank := [i for i in range(inputs.number) if without_data(inputs.tiles, i)]:
        names = listing([str(inputs.refs[i].image) for i in blank], 5)
        logger.warning(f"Warning: {len(blank)} tiles have no data in any band; their masks are background:{names}")
        found.probability[blank] = 0
        if found.landslide is not None:
            found.landslide[blank] = 0
    return found


def refuse_leaked(leaked: list[str]) -> None:
    """Raise InputError if there are tiles that every member was trained on.

    Args:
        leaked: Images of these tiles, as in `Prediction.leaked`.

    Raises:
        InputError: If there are any; the first five are named.

    Example:
        >>> refuse_leaked([])
    """
    if leaked:
        raise InputError(
            f"{len(leaked)} tiles were in the training data of every fold that is used:{listing(leaked, 5)}"
        )


def tell_leaked(leaked: list[str]) -> None:
    """Log a warning if there are tiles that every member was trained on.

    Args:
        leaked: Images of these tiles, as in `Prediction.leaked`.

    Example:
        >>> tell_leaked([])
    """
    if leaked:
        what = f"{len(leaked)} tiles, such as {leaked[0]}, were in the training data of every fold that is used"
        logger.warning(f"Warning: {what}; a score on them says nothing about new tiles.")
