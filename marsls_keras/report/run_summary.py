"""Contents of the report on a run: its data, scores of its out-of-fold predictions, and remarks on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from marsls_keras.counts import Counts, confusion, counts_at_thresholds, histogram
from marsls_keras.data.decoded.disk_cache import Images
from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.decision_record import Tuning
from marsls_keras.intervals import region_spread, score_band, score_interval

BASELINE = 0.5
"""Threshold of a run that was not tuned."""

_MIOU_TOLERANCE = 5e-4
"""Largest difference in mIoU that rounding of the same predictions can explain."""


@dataclass(frozen=True)
class FoldReport:
    """Records of a finished fold, read from its directory.

    Attributes:
        fold: Number of the fold.
        rows: Rows of its history.csv, one per epoch.
        metrics: Content of its metrics.json.
        environment: Content of its environment.json.

    Example:
        >>> FoldReport(0, [{"epoch": 0.0, "val_miou": 0.7}], metrics={"tiles": 90}, environment={}).metrics["tiles"]
        90
    """

    fold: int
    rows: list[dict[str, float]]
    metrics: dict[str, Any]
    environment: dict[str, Any]


@dataclass(frozen=True)
class RunReport:
    """Records, data and out-of-fold predictions of a run.

    Attributes:
        name: Name of the run.
        config: Configuration as YAML.
        fingerprint: Content of its fingerprint.json.
        folds: The finished folds.
        missing: Reason why each other fold is missing.
        decision: Decision of the run, None if it was not tuned.
        refs: The N tiles of its splits.json, in that order.
        held_out_by: Fold that holds out each tile, int (N,); -1 for a tile that always trains.
        blocks: Block of each of the N tiles.
        images: float32 (N, H, W, C), canonical.
        bands: Names of the C bands.
        masks: uint8 (N, H, W) of {0, 1}.
        probability: float32 (N, H, W), out-of-fold, mean over the decision's TTA views (one view without a decision).
            Values for tiles of a missing fold are ignored.
        predicted: Masks by the decision, uint8 (N, H, W) of {0, 1}.
        study: Content of the study.json of its hyperparameter search, None if there was none.
        valid: bool (N, H, W), False where a band had no data and was filled; None if no band was filled.
        among_neighbours: "scores" and "interval" of the same decision where windows see the images of all tiles around,
            as in a published region; None unless folds are isolated regions and views are of windows.

    Example:
        >>> masks = np.eye(8, dtype="uint8")[None]
        >>> tile = {"refs": (TileRef("a", None, None, "train", "base", None),), "blocks": ["a"], "bands": ("gray",)}
        >>> arrays = {"images": masks[..., None], "masks": masks, "probability": 0.9 * masks, "predicted": masks}
        >>> run = RunReport("default", "", {}, [], ["not begun"], None, held_out_by=np.array([0]), **tile, **arrays)
        >>> run.threshold, run.views, run.decided_alone
        (0.5, 'identity', False)
    """

    name: str
    config: str
    fingerprint: dict[str, Any]
    folds: list[FoldReport]
    missing: list[str]
    decision: Decision | None
    refs: tuple[TileRef, ...]
    held_out_by: np.ndarray
    blocks: list[str]
    images: Images
    bands: tuple[str, ...]
    masks: np.ndarray
    probability: np.ndarray
    predicted: np.ndarray
    study: dict[str, Any] | None = None
    valid: np.ndarray | None = None
    among_neighbours: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check that all fields per tile have the same length.

        Raises:
            ValueError: If they do not.
        """
        names = ("held_out_by", "blocks", "images", "masks", "probability", "predicted")
        lengths = {name: len(getattr(self, name)) for name in names}
        if set(lengths.values()) != {len(self.refs)}:
            raise ValueError(f"A report needs one of each per tile. Received: {len(self.refs)} refs and {lengths}")

    @property
    def threshold(self) -> float:
        """Threshold of the decision, 0.5 without a decision."""
        return self.decision.threshold if self.decision else BASELINE

    @property
    def views(self) -> str:
        """Name of the set of TTA views of the decision, "identity" without a decision."""
        return self.decision.view_set if self.decision else "identity"

    @property
    def tuning(self) -> Tuning | None:
        """Results of tuning; None if the run was not tuned."""
        return None if self.decision is None else self.decision.tuning

    @property
    def decided_alone(self) -> bool:
        """Whether the decision was tuned for this run alone, not for an ensemble."""
        return self.tuning is not None and len(self.tuning.runs) == 1

    @property
    def kept_plain(self) -> bool:
        """Whether tuning kept the baseline: one view, threshold 0.5, no post-processing."""
        return self.decision is not None and self.decision.is_plain


@dataclass(frozen=True)
class Evaluation:
    """Scores of a run's masks on the M tiles with out-of-fold predictions.

    Attributes:
        index: Positions of these tiles in the run, int (M,).
        counts: Confusion counts per tile, each field (M,).
        tiles: Scores per tile by name, each (M,).
        pooled: Counts over all pixels.
        scores: Scores of the pooled counts; empty if there is no tile.
        interval: 95 % interval of the pooled mIoU over blocks; None with fewer than two.
        histograms: Histograms of the probability per block and class, int64 (blocks, 2, BINS).
        regions: Spread of the mIoU over folds, from `marsls_keras.intervals.region_spread`; None with fewer than two.

    Example:
        >>> masks = np.eye(8, dtype="uint8")[None]
        >>> tile = {"refs": (TileRef("a", None, None, "train", "base", None),), "blocks": ["a"], "bands": ("gray",)}
        >>> arrays = {"images": masks[..., None], "masks": masks, "probability": 0.9 * masks, "predicted": masks}
        >>> fold = FoldReport(0, [], {}, {})
        >>> run = RunReport("default", "", {}, [fold], [], None, held_out_by=np.array([0]), **tile, **arrays)
        >>> evaluation = evaluate(run)
        >>> evaluation.pooled, evaluation.worst_first.tolist()
        (Counts(tp=8, fp=0, fn=0, tn=56), [0])
    """

    index: np.ndarray
    counts: Counts
    tiles: dict[str, np.ndarray]
    pooled: Counts
    scores: dict[str, float]
    interval: tuple[float, float] | None
    histograms: np.ndarray
    regions: dict[str, Any] | None

    @property
    def worst_first(self) -> np.ndarray:
        """Positions among the M tiles, by ascending mIoU."""
        return np.argsort(self.tiles["miou"], kind="stable")


def evaluate(run: RunReport) -> Evaluation:
    """Score the out-of-fold predictions of a run, per tile and pooled, with a 95 % interval over blocks.

    Example:
        >>> masks = np.eye(8, dtype="uint8")[None]
        >>> tile = {"refs": (TileRef("a", None, None, "train", "base", None),), "blocks": ["a"], "bands": ("gray",)}
        >>> arrays = {"images": masks[..., None], "masks": masks, "probability": 0.9 * masks, "predicted": masks}
        >>> fold = FoldReport(0, [], {}, {})
        >>> run = RunReport("default", "", {}, [fold], [], None, held_out_by=np.array([0]), **tile, **arrays)
        >>> evaluate(run).scores["miou"], evaluate(run).interval  # one block has no interval
        (1.0, None)
    """
    finished = np.isin(run.held_out_by, [fold.fold for fold in run.folds])
    # A training that overflowed may predict NaN: such a tile counts as not predicted instead of as background.
    index = np.flatnonzero(finished & np.isfinite(run.probability).all((1, 2)))
    truth, probability = run.masks[index], run.probability[index].astype(np.float32)
    counts = confusion(truth, run.predicted[index], axis=(1, 2))
    pooled = counts.pooled()
    blocks, block = np.unique(np.asarray(run.blocks, dtype=str)[index], return_inverse=True)
    histograms = [histogram(truth[block == b], probability[block == b]) for b in range(len(blocks))]
    return Evaluation(
        index,
        counts,
        counts.scores(),
        pooled,
        pooled.scores() if index.size else {},
        score_interval(counts, block),
        np.stack(histograms) if histograms else np.zeros((0, 2, 1), np.int64),
        region_spread(counts, run.held_out_by[index]),
    )


def threshold_band(histograms: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the 95 % interval of the pooled mIoU at every threshold; None with fewer than two blocks.

    Returns:
        Lower and upper ends, float (BINS,) each.

    Args:
        histograms: int64 (blocks, 2, BINS).

    Example:
        >>> histograms = np.stack([histogram(np.array([0, 1]), np.array([0.2, 0.7]))] * 2)
        >>> low, high = threshold_band(histograms)
        >>> float(low[500]), float(low[900])  # all right at 0.5, no landslide found at 0.9
        (1.0, 0.25)
    """
    return score_band(counts_at_thresholds(histograms))


def headline(run: RunReport, evaluation: Evaluation) -> dict[str, Any]:
    """Return the score to quote for a run: kind, scores and interval.

    It is the expected score of the decision on new tiles if there is one, else the score of nested cross-validation if
    there is one. A score of kind "tuned" is slightly optimistic, since threshold and views were chosen on the same
    tiles.

    Returns:
        "kind" ("not tuned", "tuned", "tuned as an ensemble", "nested" or "baseline"), "scores" and "interval".

    Example:
        >>> masks = np.eye(8, dtype="uint8")[None]
        >>> tile = {"refs": (TileRef("a", None, None, "train", "base", None),), "blocks": ["a"], "bands": ("gray",)}
        >>> arrays = {"images": masks[..., None], "masks": masks, "probability": 0.9 * masks, "predicted": masks}
        >>> fold = FoldReport(0, [], {}, {})
        >>> run = RunReport("default", "", {}, [fold], [], None, held_out_by=np.array([0]), **tile, **arrays)
        >>> headline(run, evaluate(run))["kind"]
        'not tuned'
    """
    tuning = run.tuning
    if tuning is None or not run.decided_alone:
        kind = "not tuned" if tuning is None else "tuned as an ensemble"
        return {"kind": kind, "scores": evaluation.scores, "interval": evaluation.interval}
    quoted = tuning.expected or tuning.nested
    if quoted is None:
        return {"kind": "tuned", "scores": evaluation.scores, "interval": evaluation.interval}
    kind = "nested" if tuning.nested and quoted.scores == tuning.nested.scores and not run.kept_plain else "baseline"
    return {"kind": kind, "scores": quoted.scores.model_dump(), "interval": quoted.interval}


def remarks(run: RunReport, evaluation: Evaluation) -> list[str]:
    """Return warnings on the validity of the scores, one or two sentences each.

    Example:
        >>> masks = np.eye(8, dtype="uint8")[None]
        >>> tile = {"refs": (TileRef("a", None, None, "train", "base", None),), "blocks": ["a"], "bands": ("gray",)}
        >>> arrays = {"images": masks[..., None], "masks": masks, "probability": 0.9 * masks, "predicted": masks}
        >>> run = RunReport("default", "", {}, [], [], None, held_out_by=np.array([0]), **tile, **arrays)
        >>> remarks(run, evaluate(run))[0]
        '1 of 1 tiles have no out-of-fold prediction and are in none of the figures.'
    """
    found = []
    left_out = len(run.refs) - len(evaluation.index)
    if left_out:
        of_finished = int(np.isin(run.held_out_by, [fold.fold for fold in run.folds]).sum()) - len(evaluation.index)
        why = (
            f"; {of_finished} of them lie in finished folds but their predictions are not finite numbers"
            if of_finished
            else ""
        )
        found.append(
            f"{left_out} of {len(run.refs)} tiles have no out-of-fold prediction and are in none of the figures{why}."
        )
    if evaluation.index.size and evaluation.interval is None:
        found.append("No interval can be given: all tiles are of one block, which says nothing of others.")
    tuning = run.tuning
    if tuning is None:
        return found + [
            f"This run is not tuned: threshold {BASELINE}, one view. "
            f"marsls tune --run {run.name} chooses what is better."
        ]
    folds = sorted(fold.fold for fold in run.folds)
    if sorted(tuning.folds) != folds:
        before, now = (", ".join(map(str, numbers)) or "none" for numbers in (sorted(tuning.folds), folds))
        found.append(
            f"The decision was taken on folds {before}, but finished are {now}. Run marsls tune --run {run.name} again."
        )
    elif (
        run.decided_alone
        and evaluation.scores
        and tuning.tuned
        and abs(tuning.tuned.scores.miou - evaluation.scores["miou"]) > _MIOU_TOLERANCE
    ):
        found.append(
            f"The decision was taken on other predictions: it says mIoU {tuning.tuned.scores.miou:.4f} where these "
            f"tiles give {evaluation.scores['miou']:.4f}. Run marsls tune --run {run.name} again."
        )
    if not run.decided_alone:
        found.append(
            f"The decision is that of the ensemble of {', '.join(tuning.runs)}. Figures said to be the ensemble's are "
            "so; all others are this run's alone, at the ensemble's threshold and views."
        )
    elif not tuning.nested:
        found.append("The tuned figures are not nested (that needs two folds), so they are a little too good.")
    elif tuning.baseline and tuning.nested.scores.miou <= tuning.baseline.scores.miou:
        kept = ", so one view and threshold 0.5 are kept" if run.kept_plain else ""
        found.append(f"Tuning did not help: the nested mIoU is not above the baseline's{kept}.")
    return found


def not_comparable(runs: list[RunReport]) -> str | None:
    """Return why the scores of runs cannot be compared (different data, tiles or folds); None if they can.

    Example:
        >>> masks = np.eye(8, dtype="uint8")[None]
        >>> tile = {"refs": (TileRef("a", None, None, "train", "base", None),), "blocks": ["a"], "bands": ("gray",)}
        >>> arrays = {"images": masks[..., None], "masks": masks, "probability": 0.9 * masks, "predicted": masks}
        >>> data = [{"sha256": "aa"}, {"sha256": "bb"}]
        >>> runs = [RunReport("a", "", sha, [], [], None, held_out_by=np.array([0]), **tile, **arrays) for sha in data]
        >>> not_comparable(runs)
        'The runs were trained on different data: their figures cannot be compared.'
    """
    if len({run.fingerprint.get("sha256") for run in runs}) > 1:
        return "The runs were trained on different data: their figures cannot be compared."
    tiles = [{ref.id: int(fold) for ref, fold in zip(run.refs, run.held_out_by, strict=True)} for run in runs]
    finished = [{fold.fold for fold in run.folds} for run in runs]
    scored = [{tile for tile, fold in held.items() if fold in done} for held, done in zip(tiles, finished, strict=True)]
    if any(tiles != scored[0] for tiles in scored):
        return (
            "The runs have predictions for different tiles: "
            "their figures cannot be compared until all have the same folds."
        )
    if any(held != tiles[0] for held in tiles):
        return "The runs divide the tiles into folds differently: small differences between them mean nothing."
    return None
