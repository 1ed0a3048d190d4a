"""The decision: how predictions of members and views become a mask, in decision.json, as `tune` chose it and other commands follow it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from marsls_keras.data.formats.tile import resample
from marsls_keras.data.grid.stitching import stitch
from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.data.splits import FULL, Fold
from marsls_keras.errors import InputError
from marsls_keras.inference.decision_record import read_decision_file
from marsls_keras.inference.postprocess import postprocess
from marsls_keras.runs.run import Run


@dataclass(frozen=True)
class Choice:
    """How predictions become a mask; the defaults are the plain decision.

    Attributes:
        views: Name of the set of views that is averaged.
        weights: Weight of each run, in their order; they add up to 1. Empty for equal weights.
        averaging: What is averaged over views and members, "probability" or "logit".
        threshold: A pixel is landslide if its mean probability is at least this.
        max_hole: Holes of at most this many pixels are filled, 0 for none.
        min_area: Components of fewer pixels are removed, 0 for none.
        across_borders: Whether components and holes are those of the picture that the tiles were cut from, not of each tile alone.
    """

    views: str = "identity"
    weights: tuple[float, ...] = ()
    averaging: str = "probability"
    threshold: float = 0.5
    max_hole: int = 0
    min_area: int = 0
    across_borders: bool = False

    def as_dict(self, runs: Sequence[str]) -> dict[str, Any]:
        """Return the keys of decision.json, the weights by the name of the run."""
        weights = self.weights or (1 / len(runs),) * len(runs)
        return {**self.__dict__, "weights": dict(zip(runs, weights, strict=True))}


REGION, PUBLISHED = "region", "published"
"""What a decision is for: a region of which nothing else is known, or tiles among labelled neighbours whose images windows see."""

IN_WORDS = {REGION: "a new region", PUBLISHED: "tiles among labelled neighbours"}

_FILES = {REGION: "decision_region.json", PUBLISHED: "decision.json"}

PLAIN: dict[str, Any] = {**Choice().__dict__, "weights": None}
"""The decision of a run that was not tuned; also what a key means that an earlier version did not write."""


def segment(decision: dict[str, Any], probability: np.ndarray, refs: Sequence[TileRef], size: tuple[int, ...] | None = None) -> np.ndarray:
    """Return the masks of tiles, as a decision has them.

    Args:
        decision: Content of decision.json, or PLAIN; one that fits the tiles, see `marsls_keras.inference.ensemble.fitting`.
        probability: Mean probability (N, H, W), float32, at the tiles' own size.
        refs: The tiles, N of them. Across their borders nothing is known but these.
        size: Height and width that the networks saw, where `data.resize` is another size: areas were chosen in its pixels, and are scaled.

    Returns:
        uint8 of {0, 1}, of the same shape.
    """
    scale = 1.0 if size is None else float(np.prod(probability.shape[1:]) / np.prod(size))
    masks, min_area, max_hole = probability >= np.float32(decision["threshold"]), decision["min_area"] * scale, decision["max_hole"] * scale
    if not decision["across_borders"]:
        return postprocess(masks, min_area, max_hole).astype(np.uint8)
    layers = np.stack([masks, np.ones_like(masks)], axis=-1)
    for picture, put_back in stitch(refs, layers):
        known = picture[..., 1]
        put_back(np.stack([postprocess(picture[..., 0], min_area, max_hole, known), known], axis=-1))
    return layers[..., 0].astype(np.uint8)


def full_size(
    decision: dict[str, Any], small: np.ndarray, refs: Sequence[TileRef], sizes: Sequence[tuple[int, int]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield probability, float32, and mask, uint8, of each tile at its own size.

    Tiles of different sizes are not those of one grid, so that each is segmented for itself, as one is where nothing goes on across its
    borders.

    Args:
        decision: As in `segment`.
        small: Mean probability (N, H, W), float32, at the size that the networks saw.
        refs: The tiles, N of them.
        sizes: Height and width of each tile.
    """
    if decision["across_borders"] and len(set(sizes)) == 1:
        large = np.stack([resample(values, *sizes[0], order=1) for values in small])
        yield from zip(large, segment(decision, large, refs, small.shape[1:]), strict=True)
        return
    alone = {**decision, "across_borders": False}
    for values, ref, (height, width) in zip(small, refs, sizes, strict=True):
        one = resample(values, height, width, order=1)[None]
        yield one[0], segment(alone, one, [ref], small.shape[1:])[0]


def described(decision: dict[str, Any]) -> str:
    """Return a decision in words, without what it leaves as it is."""
    weights = decision["weights"] or {}
    parts = [f"views {decision['views']}"]
    if len(set(weights.values())) > 1:
        parts.append("weights " + ", ".join(f"{run} {weight:g}" for run, weight in weights.items()))
    if decision["averaging"] != "probability":
        parts.append("mean of logits")
    parts.append(f"threshold {decision['threshold']:g}")
    if decision["max_hole"]:
        parts.append(f"holes up to {decision['max_hole']} pixels filled")
    if decision["min_area"]:
        parts.append(f"components below {decision['min_area']} pixels removed")
    if decision["across_borders"]:
        parts.append("both across tile borders")
    return ", ".join(parts)


def decision_path(runs: Sequence[Run], purpose: str = PUBLISHED) -> Path:
    """Return where their decision for a purpose lies: in the run's folder, or in one named after all of them if they are several."""
    return runs[0].path.parent / "+".join(run.name for run in runs) / _FILES[purpose]


def plain_decision(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the decision of runs that were not tuned: threshold 0.5, and the views of the first run's configuration."""
    return {**PLAIN, "views": runs[0].config.inference.views}


def read_decision(runs: Sequence[Run], folds: Sequence[Fold], purpose: str | None = None) -> dict[str, Any] | None:
    """Return the decision of these runs for a purpose, with every key of PLAIN, or None if they were not tuned.

    Without a decision for this purpose it is the one for the other, which its key "for" tells; without a purpose, the one for a region if
    there is one. Earlier versions wrote no such key: a decision on isolated folds is one for a region.

    That of a refit on all tiles is the one that was taken on the folds, as far as they are still there: nothing else says anything of it.

    Raises:
        InputError: If it is damaged or was edited, is that of other runs, or if a fold was trained anew since, so that the decision is
            about other weights.
    """
    wanted = purpose or REGION
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path in (decision_path(runs, wanted), decision_path(runs, PUBLISHED if wanted == REGION else REGION)):
        if path.exists() and wanted not in found:  # what is not followed may be damaged
            decision = read_decision_file(path)
            found.setdefault(decision.get("for", REGION if decision.get("isolated") else PUBLISHED), (path, decision))
    if not found:
        return None
    kind = wanted if wanted in found else next(iter(found))
    path, decision = found[kind]
    if sorted(decision["runs"]) != sorted(run.name for run in runs):
        raise InputError(f"{path} is the decision of {', '.join(decision['runs'])}. Run marsls tune again.")
    for run in runs:
        then = decision["members"][run.name]
        members = [fold for fold in decision["folds"] if run.fold(fold).finished] if FULL in folds else folds
        stale = [fold for fold, digest in run.digest(members).items() if then.get(fold, digest) != digest]
        if stale:
            raise InputError(f"{path} was taken before fold {', '.join(stale)} of run {run.name} was trained anew. Run marsls tune again.")
    return {**PLAIN, **decision, "for": kind}
