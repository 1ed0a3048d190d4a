"""Out-of-fold predictions of whole runs: every tile of the pool exactly once, by the fold that did not train on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from marsls_keras.data.derive import load_folder
from marsls_keras.data.fingerprint import fingerprint
from marsls_keras.data.integrity import Tiles
from marsls_keras.errors import InputError, listing
from marsls_keras.files import sha256
from marsls_keras.inference.oof import load_oof, save_oof
from marsls_keras.inference.predict import load_member, predict_views
from marsls_keras.inference.views import ViewPrediction, views_of
from marsls_keras.models import has_detection
from marsls_keras.training.run_dir import Run


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions of one run, or the mean of several.

    Attributes:
        tiles: The N tiles, in the order of splits.json.
        folds: int (N,), the fold that held each tile out.
        blocks: Block label of each tile, (N,).
        views: Per view, the landslide probability, float32 (N, H, W).
        landslide: Per view, the probability that there is any landslide in a tile, float32 (N,); empty unless every run has a head for it.
        members: Per run, the SHA-256 of the weights of each fold that predicted.
    """

    tiles: Tiles
    folds: np.ndarray
    blocks: np.ndarray
    views: dict[str, np.ndarray]
    members: dict[str, dict[str, str]]
    landslide: dict[str, np.ndarray] = field(default_factory=dict)

    def probability(self, view_set: str) -> np.ndarray:
        """Return the mean probability over a set of views, float32 (N, H, W)."""
        names = views_of(view_set)
        return sum((self.views[name] for name in names[1:]), self.views[names[0]]) / np.float32(len(names))

    def image_probability(self, view_set: str) -> np.ndarray | None:
        """Return the mean probability of any landslide in a tile over a set of views, float32 (N,); None without a head for it."""
        each = [self.landslide[name] for name in views_of(view_set)] if self.landslide else None
        return None if each is None else np.stack(each).mean(axis=0)


def pool_tiles(run: Run, data: Path | None = None, bands: Sequence[str] | None = None) -> Tiles:
    """Return the tiles of a run's pool, decoded, in the order of splits.json.

    Args:
        run: The run.
        data: Where its data are now; where they were when it was trained by default.
        bands: Names of all bands that are needed, as in `data.bands`; those of the run by default.

    Raises:
        InputError: If the data are missing, damaged, or not those that the run was trained on.
    """
    root = data or run.data_root
    if not root.is_dir():
        raise InputError(f"The data of run {run.name} are no longer in {root}. Say where they are with --data.")
    tiles = load_folder(root, run.config.data.model_copy(update={"bands": tuple(bands or run.config.data.bands)}))
    position = {ref.id: i for i, ref in enumerate(tiles.refs)}
    missing = [tile["id"] for tile in run.splits.tiles if tile["id"] not in position]
    if not missing:
        tiles = tiles.subset([position[tile["id"]] for tile in run.splits.tiles])
        if fingerprint(tiles, root)["sha256"] == run.fingerprint["sha256"]:
            return tiles
    what = f"{len(missing)} tiles are missing, such as {missing[0]}" if missing else "pixels or masks of some tiles have changed"
    raise InputError(f"The data in {root} are not those that run {run.name} was trained on: {what}.")


def collect(
    runs: Sequence[Run],
    tiles: Tiles,
    views: Sequence[str],
    chosen: list[int] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> OutOfFold:
    """Gather the out-of-fold predictions of runs, computing views that are not cached yet.

    Args:
        runs: One or more runs over the same splits; their probabilities are averaged.
        tiles: The pool's tiles, from `pool_tiles`.
        views: Names of the views that are needed.
        chosen: Folds to use; all by default.
        say: Told what is being computed.

    Raises:
        InputError: If a fold cannot be used, runs have different splits, or a tile is not predicted exactly once; all are named.
    """
    for run in runs[1:]:
        if run.splits != runs[0].splits:
            raise InputError(f"Runs {runs[0].name} and {run.name} have different folds or tiles, so their predictions cannot be averaged.")
    folds = [run.finished_folds(chosen) for run in runs][0]
    ids = [tile["id"] for tile in runs[0].splits.tiles]
    held_by = np.array([tile["fold"] for tile in runs[0].splits.tiles])
    used = np.flatnonzero(np.isin(held_by, folds))
    total = {view: np.zeros((len(ids), *tiles.masks.shape[1:]), np.float32) for view in views}
    landslide = {view: np.zeros(len(ids), np.float32) for view in views} if all(map(_has_detection, runs)) else {}
    times = np.zeros(len(ids), int)
    for run in runs:
        for fold in folds:
            index = np.flatnonzero(held_by == fold)
            predicted = _fold_views(run, fold, tiles.subset(index), views, say)
            for view in views:
                total[view][index] += predicted[view].probability.astype(np.float32) / np.float32(len(runs))
                if view in landslide:
                    landslide[view][index] += np.asarray(predicted[view].landslide) / np.float32(len(runs))
            times[index] += 1
    wrong = [ids[i] for i in used if times[i] != len(runs)]
    if wrong:
        raise InputError(f"These tiles are not predicted exactly once:{listing(wrong)}")
    return OutOfFold(
        tiles=tiles.subset(used),
        folds=held_by[used],
        blocks=np.array([runs[0].splits.tiles[i]["block"] for i in used]),
        views={view: values[used] for view, values in total.items()},
        members={run.name: run.digest(folds) for run in runs},
        landslide={view: values[used] for view, values in landslide.items()},
    )


def _has_detection(run: Run) -> bool:
    return has_detection(run.config.model.name, run.config.model.options)


def _fold_views(run: Run, fold: int, held_out: Tiles, views: Sequence[str], say: Callable[[str], None]) -> dict[str, ViewPrediction]:
    """Return a fold's predictions of the tiles it held out, per view; what had to be computed is added to its oof.npz."""
    path = run.fold_path(fold) / "oof.npz"
    ids, weights = [ref.id for ref in held_out.refs], sha256(run.fold_path(fold) / "best.weights.h5")
    found = load_oof(path, ids, weights)
    complete = [view for view, seen in found.items() if seen.landslide is not None or not _has_detection(run)]
    missing = [view for view in views if view not in complete]
    if missing:
        say(f"Predicting {len(ids)} tiles of fold {fold} of run {run.name} in {len(missing)} view(s) …")
        predictions = predict_views(load_member(run, fold), held_out.images, missing, held_out.bands)
        found |= dict(zip(missing, predictions, strict=True))
        save_oof(path, ids, found, weights)
        found = load_oof(path, ids, weights)  # in the precision that later calls will find
    return found
