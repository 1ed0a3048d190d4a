"""Score a run on labelled tiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from marsls_keras.counts import confusion, detection
from marsls_keras.data.decoded.checks import require_same_family
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.load_folder import load_with_neighbours
from marsls_keras.data.splits import Fold, blocks_of, require_held_out
from marsls_keras.errors import InputError
from marsls_keras.inference.align import described
from marsls_keras.inference.decision import PLAIN, REGION, segment
from marsls_keras.inference.ensemble import fitting, predict_decided, refuse_leaked
from marsls_keras.inference.inputs import Say, bands_of, decision_of
from marsls_keras.inference.sliding_window import cells_seen
from marsls_keras.intervals import region_spread, score_interval
from marsls_keras.runs.opened import open_runs
from marsls_keras.runs.run import Run
from marsls_keras.tuning.out_of_fold import collect, pool_tiles
from marsls_keras.view_sets import of_windows, views_of

if TYPE_CHECKING:
    pass


def evaluate(
    name: str,
    runs: Path,
    split: str,
    folds: Sequence[Fold] | None,
    data: Path | None,
    release: str,
    say: Say,
    alignment: str | None = None,
    purpose: str | None = None,
) -> dict[str, Any]:
    """Score a run on labelled tiles, pooled and per tile, and as a detection of tiles with landslide if the network has a head for it.

    Args:
        name: Name of the run.
        runs: Folder of the runs.
        split: "oof" for the pool's out-of-fold predictions, or "train", "val", "test" for the ensemble's predictions of a split, of which
            tiles that were trained on are predicted by the folds that did not train on them.
        folds: Folds to use; all by default.
        data: Data folder, where the run's own are not meant.
        release: Release of the tiles in `data`, or "auto".
        say: Told what is being done.
        alignment: How members are fitted to the images first, "statistics" or "batchnorm": to all images of the split, or out-of-fold each
            to those that it held out. The decision stays the one that was taken without.
        purpose: Whose decision is followed, and how windows see out-of-fold tiles: "region", what a fold held out alone, or "published",
            all images of the pool. By default that of the decision there is.

    Raises:
        InputError: If run, fold, split or masks are missing, or there is nothing in a member to fit.
    """
    if split == "oof":
        require_held_out(folds)
    opened, used = open_runs([name], runs, folds)
    run = opened[0]
    isolated = False
    if split == "oof":
        pool = pool_tiles(run, data)
        decision = fitting(decision_of(opened, used, say, purpose), pool.refs, say)
        isolated = (purpose or decision.get("for", REGION)) == REGION
        oof = collect(opened, pool, views_of(decision["views"]), folds, say, isolated, alignment)
        tiles, places, blocks = oof.tiles, oof.places, oof.blocks
        probability = oof.probability(decision["views"], decision["weights"], decision["averaging"])
        landslide = oof.image_probability(decision["views"], decision["weights"])
    else:
        dataset = Dataset.open(data or run.data_root, release=release, conflicts=run.config.data.conflicts)
        refs = dataset.split(split)
        if not all(ref.labelled for ref in refs):
            raise InputError(f"The split {split} of {dataset.root} has no masks, so it cannot be scored.")
        config = run.config.data
        decision = decision_of(opened, used, say, purpose)
        sight = cells_seen(decision["views"], refs[0], release, config.resize)
        tiles = load_with_neighbours(dataset, refs, bands_of([run]), release, config.resize, config.cache, sight)
        require_same_family(run.fingerprint["release"], tiles.release, f"The split {split}")
        decision = fitting(decision, refs, say)
        probability, _, leaked, landslide, _ = predict_decided(opened, used, tiles, decision, say, alignment, len(refs))
        refuse_leaked(leaked)
        tiles, places = tiles.subset(range(len(refs))), refs  # without their surroundings
        blocks = np.array(blocks_of(refs, tiles.traces, run.config.data.block_size))
    counts = confusion(tiles.masks, segment(decision, probability, places), axis=(1, 2))
    regions = region_spread(counts, oof.folds) if split == "oof" and oof.geographic else None
    among = None
    if regions and isolated and of_windows(decision["views"]) and alignment is None:
        among = among_neighbours(opened, pool, decision, folds, say)
    per_tile = counts.scores()
    return {
        "run": name,
        "split": split,
        "folds": used,
        "tiles": len(tiles),
        **{key: decision[key] for key in PLAIN},
        "alignment": described(alignment, len(tiles), held_out=split == "oof"),
        "scores": counts.pooled().scores(),
        "interval": score_interval(counts, blocks),
        "regions": regions,
        "among_neighbours": among,
        "isolated": isolated,
        "detection": None if landslide is None else detection(tiles.masks, landslide),
        "per_tile": [
            {
                "tile": ref.id,
                **{score: float(values[i]) for score, values in per_tile.items()},
                **({} if landslide is None else {"landslide": float(landslide[i])}),
            }
            for i, ref in enumerate(tiles.refs)
        ],
    }


def among_neighbours(
    opened: Sequence[Run], pool: Tiles, decision: dict[str, Any], folds: Sequence[Fold] | None, say: Say
) -> dict[str, Any]:
    """Score a decision out-of-fold where windows see the images of all tiles around, as in a published region.

    The difference from the scores with isolated folds is how much lower a new region must be expected.

    Args:
        opened: The runs.
        pool: The tiles of their pool.
        decision: The decision; its views are of windows.
        folds: Folds to use; all by default.
        say: Told what is being done.

    Returns:
        "scores" and "interval", as `evaluate` has them.
    """
    other = collect(opened, pool, views_of(decision["views"]), folds, say)
    probability = other.probability(decision["views"], decision["weights"], decision["averaging"])
    counts = confusion(other.tiles.masks, segment(decision, probability, other.places), axis=(1, 2))
    return {"scores": counts.pooled().scores(), "interval": score_interval(counts, other.blocks)}
