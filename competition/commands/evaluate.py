"""Score a run on labelled tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from marsls_keras.counts import confusion, detection
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.data.splits import Fold, blocks_of, require_held_out
from marsls_keras.errors import InputError
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.decision_files import decision_of
from marsls_keras.inference.ensemble import predict_decided, refuse_leaked
from marsls_keras.inference.inputs import read_inputs
from marsls_keras.inference.purpose import Purpose
from marsls_keras.inference.sliding_window import cells_seen
from marsls_keras.intervals import region_spread, score_interval
from marsls_keras.runs.opened import open_runs
from marsls_keras.runs.run import Run
from marsls_keras.tuning.out_of_fold import collect, pool_tiles
from marsls_keras.view_sets import of_windows, views_of

OUT_OF_FOLD = "oof"
"""Value of `EvaluateRequest.split` for out-of-fold scores of the pool."""


@dataclass(frozen=True)
class EvaluateRequest:
    """Arguments of `marsls evaluate`.

    Attributes:
        name: Name of the run.
        split: "oof" for the pool's out-of-fold predictions, or "train", "val", "test" for the ensemble's predictions of
            a split, of which tiles that were trained on are predicted by the folds that did not train on them.
        runs: Folder of the runs.
        folds: Folds to use; all by default.
        data: Data folder, where the run's own are not meant.
        release: Release of the tiles in `data`, or "auto".
        purpose: Whose decision is followed, and how windows see out-of-fold tiles: "region", what a fold held out
            alone, or "published", all images of the pool. By default that of the decision there is.

    Example:
        >>> EvaluateRequest("default", split="val").folds is None
        True
    """

    name: str
    split: str = OUT_OF_FOLD
    runs: Path = Path("runs")
    folds: Sequence[Fold] | None = None
    data: Path | None = None
    release: str = "auto"
    purpose: str | None = None


@dataclass(frozen=True)
class _Predicted:
    """Predictions of labelled tiles, and what is needed to score them.

    Attributes:
        tiles: The N tiles.
        probability: Mean landslide probability, float32 (N, H, W).
        landslide: Probability of any landslide in a tile, float32 (N,); None without a head for it.
        places: The tiles as they lie in pictures.
        blocks: Block label of each, (N,).
        decision: The decision that is followed.
        used: Folds that predicted.
        regions: The fold of each tile, (N,), where each fold is a region of its own; else None.
        isolated: Whether windows see only what a fold held out.
        among: Scores where windows see all neighbours instead, if these differ.
    """

    tiles: Tiles
    probability: np.ndarray
    landslide: np.ndarray | None
    places: Sequence[TileRef]
    blocks: np.ndarray
    decision: Decision
    used: list[Fold]
    regions: np.ndarray | None = None
    isolated: bool = False
    among: dict[str, Any] | None = None


def evaluate(request: EvaluateRequest) -> dict[str, Any]:
    """Score a run on labelled tiles, pooled and per tile.

    If the network has a head for it, the detection of tiles with landslide is scored, too.

    Raises:
        InputError: If run, fold, split or masks are missing.

    Example:
        >>> evaluate(EvaluateRequest("default"))["scores"]["miou"]  # doctest: +SKIP
        0.7642
    """
    found = _out_of_fold(request) if request.split == OUT_OF_FOLD else _of_split(request)
    decision, landslide = found.decision, found.landslide
    counts = confusion(found.tiles.masks, decision.segment(found.probability, found.places), axis=(1, 2))
    per_tile = counts.scores()
    return {
        "run": request.name,
        "split": request.split,
        "folds": found.used,
        "tiles": len(found.tiles),
        **decision.to_values(),
        "scores": counts.pooled().scores(),
        "interval": score_interval(counts, found.blocks),
        "folds_are_regions": found.regions is not None,
        "regions": None if found.regions is None else region_spread(counts, found.regions),
        "among_neighbours": found.among,
        "isolated": found.isolated,
        "detection": None if landslide is None else detection(found.tiles.masks, landslide),
        "per_tile": [
            {
                "tile": ref.id,
                **{score: float(values[i]) for score, values in per_tile.items()},
                **({} if landslide is None else {"landslide": float(landslide[i])}),
            }
            for i, ref in enumerate(found.tiles.refs)
        ],
    }


def _out_of_fold(request: EvaluateRequest) -> _Predicted:
    """Predict each tile of the pool by the networks of the fold that held it out."""
    require_held_out(request.folds)
    opened, used = open_runs([request.name], request.runs, request.folds)
    pool = pool_tiles(opened[0], request.data)
    decision = decision_of(opened, used, request.purpose).fit(pool.refs)
    isolated = (request.purpose or decision.purpose or Purpose.REGION) == Purpose.REGION
    oof = collect(opened, pool, views_of(decision.view_set), request.folds, isolated)
    several = oof.geographic and len(set(oof.folds.tolist())) > 1
    among = None
    if several and isolated and of_windows(decision.view_set):
        among = among_neighbours(opened, pool, decision, request.folds)
    return _Predicted(
        tiles=oof.tiles,
        probability=oof.probability(decision.view_set, decision.run_weights, decision.averaging),
        landslide=oof.image_probability(decision.view_set, decision.run_weights),
        places=oof.places,
        blocks=oof.blocks,
        decision=decision,
        used=used,
        regions=oof.folds if oof.geographic else None,
        isolated=isolated,
        among=among,
    )


def _of_split(request: EvaluateRequest) -> _Predicted:
    """Predict a labelled split by the ensemble of the folds."""
    opened, used = open_runs([request.name], request.runs, request.folds)
    run, config = opened[0], opened[0].config.data
    dataset = Dataset.open(request.data or run.data_root, release=request.release, conflicts=config.conflicts)
    refs = dataset.split(request.split)
    if not all(ref.labelled for ref in refs):
        raise InputError(f"The split {request.split} of {dataset.root} has no masks, so it cannot be scored.")
    decision = decision_of(opened, used, request.purpose)
    sight = cells_seen(decision.view_set, refs[0], request.release, config.resize)
    inputs = read_inputs(dataset, refs, opened, request.release, sight, config.cache, f"The split {request.split}")
    decision = decision.fit(refs)
    probability, _, leaked, landslide, _ = predict_decided(opened, used, inputs, decision)
    refuse_leaked(leaked)
    blocks = np.array(blocks_of(refs, inputs.tiles.traces, config.block_size))
    return _Predicted(inputs.wanted, probability, landslide, refs, blocks, decision, used)


def among_neighbours(
    opened: Sequence[Run], pool: Tiles, decision: Decision, folds: Sequence[Fold] | None
) -> dict[str, Any]:
    """Score a decision out-of-fold, with windows that see the images of all surrounding tiles.

    That is the situation of unlabelled tiles within a published region.

    The difference from the scores with isolated folds tells how much lower a new region will score.

    Args:
        opened: The runs.
        pool: The tiles of their pool.
        decision: The decision; its views are of windows.
        folds: Folds to use; all by default.

    Returns:
        "scores" and "interval", as `evaluate` returns them.

    Example:
        >>> among_neighbours([run], pool, decision, None)["scores"]["miou"]  # doctest: +SKIP
        0.7701
    """
    other = collect(opened, pool, views_of(decision.view_set), folds)
    probability = other.probability(decision.view_set, decision.run_weights, decision.averaging)
    counts = confusion(other.tiles.masks, decision.segment(probability, other.places), axis=(1, 2))
    return {"scores": counts.pooled().scores(), "interval": score_interval(counts, other.blocks)}
