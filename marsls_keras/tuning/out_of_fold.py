"""Collect out-of-fold predictions: each tile of the pool is predicted once, by the fold that held it out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from marsls_keras.backend import import_backend
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.fingerprint import fingerprint
from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.data.load_folder import load_folder
from marsls_keras.data.splits import Fold
from marsls_keras.errors import InputError, listing
from marsls_keras.files import sha256
from marsls_keras.inference.averaging import gather, shares, spread
from marsls_keras.inference.member import load_member
from marsls_keras.inference.oof_cache import load_oof, save_oof
from marsls_keras.inference.sliding_window import predict_tiles
from marsls_keras.inference.tta import ViewPrediction
from marsls_keras.models import has_detection
from marsls_keras.runs.run import Run
from marsls_keras.view_sets import of_windows, views_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions of one or several runs.

    Attributes:
        tiles: The N tiles, in the order of splits.json.
        folds: Fold that held out each tile, int (N,).
        blocks: Block label of each tile, (N,).
        probabilities: Landslide probability per run and view, float16 (N, H, W), as cached.
        members: SHA-256 of the weights of each fold, per run.
        isolated: Whether windows and post-processing see only the tiles of the same fold, as in a new region.
        geographic: Whether each fold is a region of its own.
        landslide: Probability that a tile contains any landslide, per run and view, float32 (N,); empty unless every
            run has a detection head.

    Example:
        >>> oof = collect([run], pool_tiles(run), views_of("d4"))  # doctest: +SKIP
        >>> oof.probability("d4").shape  # doctest: +SKIP
        (531, 128, 128)
    """

    tiles: Tiles
    folds: np.ndarray
    blocks: np.ndarray
    probabilities: dict[str, dict[str, np.ndarray]]
    members: dict[str, dict[str, str]]
    isolated: bool = False
    geographic: bool = False
    landslide: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    @property
    def places(self) -> tuple[TileRef, ...]:
        """Tile references for post-processing; if isolated, the tiles of each fold count as a raster of their own."""
        return _isolated_refs(self.tiles.refs, self.folds) if self.isolated else self.tiles.refs

    def probability(
        self, view_set: str, run_weights: Mapping[str, float] | None = None, averaging: str = "probability"
    ) -> np.ndarray:
        """Return the mean probability over a set of views and the runs, float32 (N, H, W).

        Args:
            view_set: Name of a set of views.
            run_weights: Weight of each run; equal by default.
            averaging: Quantity that is averaged, "probability" or "logit".
        """
        used = shares(run_weights, list(self.probabilities))
        return self.mean({run: self.over_views(run, view_set, averaging) for run in used}, run_weights, averaging)

    def over_views(self, run: str, view_set: str, averaging: str) -> np.ndarray:
        """Return the mean of one run's probabilities or logits over a set of views, float32 (N, H, W)."""
        names = views_of(view_set)
        total = spread(self.probabilities[run][names[0]], averaging).copy()
        for name in names[1:]:
            total += spread(self.probabilities[run][name], averaging)
        total /= np.float32(len(names))
        return total

    def mean(
        self, over_views: Mapping[str, np.ndarray], run_weights: Mapping[str, float] | None, averaging: str
    ) -> np.ndarray:
        """Return the mean probability over runs, from the results of `over_views` for each run of weight above 0."""
        total = np.zeros(next(iter(over_views.values())).shape, np.float32)
        for run, weight in shares(run_weights, list(self.probabilities)).items():
            total += over_views[run] * np.float32(weight)
        return gather(total, averaging)

    def image_probability(self, view_set: str, run_weights: Mapping[str, float] | None = None) -> np.ndarray | None:
        """Return the mean image probability over views and runs, float32 (N,); None without a detection head.

        The image probability is the probability that a tile contains any landslide.
        """
        if not self.landslide:
            return None
        each = {
            run: np.stack([self.landslide[run][name] for name in views_of(view_set)]).mean(axis=0)
            for run in self.probabilities
        }
        return self.mean(each, run_weights, "probability")


def pool_tiles(run: Run, data: Path | None = None, bands: Sequence[str] | None = None) -> Tiles:
    """Read and decode the tiles of a run's pool, in the order of splits.json.

    Args:
        run: The run.
        data: Data folder; the one that the run was trained on by default.
        bands: Names of the bands to read, as in `data.bands`; those of the run by default.

    Raises:
        InputError: If the data are missing, damaged, or not those that the run was trained on.

    Example:
        >>> pool_tiles(Run.open("runs/base")).images.shape  # doctest: +SKIP
        (531, 128, 128, 7)
    """
    root = data or run.data_root
    if not root.is_dir():
        what = f"{root} is a file, expected the data folder of run {run.name}." if root.exists() else ""
        raise InputError(
            f"{what or f'The data of run {run.name} are no longer in {root}.'} Say where they are with --data."
        )
    tiles = load_folder(root, run.config.data.model_copy(update={"bands": tuple(bands or run.config.data.bands)}))
    position = {ref.id: i for i, ref in enumerate(tiles.refs)}
    missing = [tile["id"] for tile in run.splits.tiles if tile["id"] not in position]
    if not missing:
        tiles = tiles.subset([position[tile["id"]] for tile in run.splits.tiles])
        if fingerprint(tiles, root)["sha256"] == run.fingerprint["sha256"]:
            return tiles
    what = (
        f"{len(missing)} tiles are missing, such as {missing[0]}"
        if missing
        else "pixels or masks of some tiles have changed"
    )
    raise InputError(f"The data in {root} are not those that run {run.name} was trained on: {what}.")


def collect(
    runs: Sequence[Run],
    tiles: Tiles,
    views: Sequence[str],
    chosen: Sequence[Fold] | None = None,
    isolated: bool = False,
) -> OutOfFold:
    """Collect the out-of-fold predictions of runs, and compute and cache missing views.

    Views of windows see the images of all tiles of the pool, never their masks, as when tiles among labelled ones are
    predicted. With `isolated` they see only the tiles that the same fold held out: with `cv: geographic` that is as in
    a new region. (Terrain bands are always derived from heights up to a few pixels beyond the border of a tile.)

    Args:
        runs: One or more runs with the same splits.
        tiles: Tiles of the pool, from `pool_tiles`.
        views: Names of the views.
        chosen: Folds to use; all by default.
        isolated: Whether windows see only the tiles of the same fold.

    Raises:
        InputError: If a fold cannot be used, runs have different splits, or a tile is not predicted exactly once; all
            such tiles are named.

    Example:
        >>> oof = collect([run], pool_tiles(run), ["identity", "rot90"], isolated=True)  # doctest: +SKIP
    """
    for run in runs[1:]:
        if run.splits != runs[0].splits:
            raise InputError(
                f"Runs {runs[0].name} and {run.name} have different folds or tiles, "
                "so their predictions cannot be averaged."
            )
    folds = [run.finished_folds(chosen) for run in runs][0]
    ids = [tile["id"] for tile in runs[0].splits.tiles]
    held_by = np.array([tile["fold"] for tile in runs[0].splits.tiles])
    used = np.flatnonzero(np.isin(held_by, folds))
    seen = replace(tiles, refs=_isolated_refs(tiles.refs, held_by)) if isolated else tiles
    shape = (len(used), *tiles.masks.shape[1:])
    predictions = {run.name: {view: np.zeros(shape, np.float16) for view in views} for run in runs}
    detecting = all(map(_has_detection, runs))
    landslide = (
        {run.name: {view: np.zeros(len(used), np.float32) for view in views} for run in runs} if detecting else {}
    )
    times = np.zeros(len(ids), int)
    for run in runs:
        for fold in folds:
            index = np.flatnonzero(held_by == fold)
            rows = np.searchsorted(used, index)
            predicted = _fold_views(run, fold, seen, index, views, isolated)
            for view in views:
                predictions[run.name][view][rows] = predicted[view].probability
                if detecting:
                    landslide[run.name][view][rows] = predicted[view].landslide
            times[index] += 1
    wrong = [ids[i] for i in used if times[i] != len(runs)]
    if wrong:
        raise InputError(f"These tiles are not predicted exactly once:{listing(wrong)}")
    return OutOfFold(
        tiles=tiles.subset(used),
        folds=held_by[used],
        blocks=np.array([runs[0].splits.tiles[i]["block"] for i in used]),
        probabilities=predictions,
        members={run.name: run.digest(folds) for run in runs},
        isolated=isolated,
        geographic=runs[0].splits.cv in ("geographic", "areas"),
        landslide=landslide,
    )


def _isolated_refs(refs: Sequence[TileRef], folds: np.ndarray) -> tuple[TileRef, ...]:
    return tuple(replace(ref, raster=f"{ref.raster}, fold {fold}") for ref, fold in zip(refs, folds, strict=True))


def _has_detection(run: Run) -> bool:
    return has_detection(run.config.model.name, run.config.model.options)


def _fold_views(
    run: Run,
    fold: Fold,
    tiles: Tiles,
    index: np.ndarray,
    views: Sequence[str],
    isolated: bool,
) -> dict[str, ViewPrediction]:
    """Return the predictions of the tiles that a fold held out, per view; missing views are computed and cached."""
    path = run.oof_path(fold)
    ids, weights = [tiles.refs[i].id for i in index], sha256(run.weights_path(fold))
    size = tiles.masks.shape[1:]
    found = load_oof(path, ids, weights, size)
    complete = [view for view, seen in found.items() if seen.landslide is not None or not _has_detection(run)]
    named = {view: f"{view} isolated" if isolated and of_windows(view) else view for view in views}
    missing = [view for view in views if named[view] not in complete]
    if missing:
        logger.info(f"Predicting {len(ids)} tiles of fold {fold} of run {run.name} in {len(missing)} view(s) …")
        import_backend()
        computed = predict_tiles(load_member(run, fold), tiles, index, missing)
        found |= {named[view]: seen for view, seen in zip(missing, computed, strict=True)}
        save_oof(path, ids, found, weights)
        found = load_oof(path, ids, weights, size)  # rounded as in later calls
    return {view: found[named[view]] for view in views}
