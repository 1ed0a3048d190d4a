"""What a report is about: what the caller hands over for each run, and the figures that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from marsls_keras.counts import Counts, confusion, counts_at_thresholds, histogram
from marsls_keras.data.decoded.disk_cache import Images
from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.intervals import region_spread, score_band, score_interval

BASELINE = 0.5
"""The threshold of a run that was not tuned."""

_AGREE = 5e-4  # a decision on the same predictions gives the same figure but for rounding


@dataclass(frozen=True)
class FoldReport:
    """A finished fold.

    Attributes:
        fold: Its number.
        rows: Rows of its history.csv, one an epoch.
        metrics: Content of its metrics.json.
        environment: Content of its environment.json.
    """

    fold: int
    rows: list[dict[str, float]]
    metrics: dict[str, Any]
    environment: dict[str, Any]


@dataclass(frozen=True)
class RunReport:
    """A run, as its directory and the data it was trained on tell.

    Attributes:
        name: Its name.
        config: Its configuration, as YAML.
        fingerprint: Content of its fingerprint.json.
        folds: The finished folds.
        missing: Why the other folds are missing, one reason each.
        decision: Content of its decision.json, None if it was not tuned.
        refs: The N tiles of its pool.
        held_out_by: int (N,), the fold that holds out each tile; -1 for a tile that always trains.
        blocks: Block of each tile, N of them.
        images: float32 (N, H, W, C), canonical.
        bands: Names of the C bands.
        masks: uint8 (N, H, W) of {0, 1}.
        probability: float32 (N, H, W), out-of-fold, mean over the decision's views (the tile as it is, without a decision). What it
            holds for a tile of a missing fold does not matter.
        predicted: uint8 (N, H, W) of {0, 1}, the masks that the decision makes of it.
        study: Content of the study.json of its search over training, None if there was none.
        valid: bool (N, H, W), False where a band had no data and was filled; None if all had.
        among_neighbours: "scores" and "interval" of the same decision where windows see the images of all tiles around, as in a published
            region; None unless folds are isolated regions and views are of windows.
    """

    name: str
    config: str
    fingerprint: dict[str, Any]
    folds: list[FoldReport]
    missing: list[str]
    decision: dict[str, Any] | None
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
        """Refuse fields that do not belong together."""
        names = ("held_out_by", "blocks", "images", "masks", "probability", "predicted")
        lengths = {name: len(getattr(self, name)) for name in names}
        if set(lengths.values()) != {len(self.refs)}:
            raise ValueError(f"A report needs one of each per tile. Received: {len(self.refs)} refs and {lengths}")

    @property
    def threshold(self) -> float:
        """The decision's threshold, or the baseline's."""
        return self.decision["threshold"] if self.decision else BASELINE

    @property
    def views(self) -> str:
        """The decision's set of views, or the tile as it is."""
        return self.decision["views"] if self.decision else "identity"

    @property
    def sizes(self) -> tuple[int, int]:
        """Up to which size, in pixels, the decision fills holes, and below which it removes components; 0 for not at all."""
        decision = self.decision or {}
        return decision.get("max_hole", 0), decision.get("min_area", 0)

    @property
    def across_borders(self) -> bool:
        """Whether these are sizes in the picture, not in each tile alone."""
        return bool(self.decision and self.decision.get("across_borders"))

    @property
    def decided_alone(self) -> bool:
        """Whether the decision is about this run only, so that its figures are this run's."""
        return self.decision is not None and len(self.decision["runs"]) == 1

    @property
    def kept_plain(self) -> bool:
        """Whether tuning found nothing better than one view and threshold 0.5."""
        return self.decision is not None and (self.views, self.threshold, self.sizes) == ("identity", BASELINE, (0, 0))


@dataclass(frozen=True)
class Evaluation:
    """Figures of a run on the M tiles that a finished fold held out, of the masks that its decision makes.

    Attributes:
        index: int (M,), positions of these tiles in the run.
        counts: Counts per tile, each field (M,).
        tiles: Scores per tile by name, each (M,).
        pooled: Counts over all pixels.
        scores: Scores of the pooled counts; empty if there is no tile.
        interval: 95 % interval of the pooled mIoU over blocks; None with fewer than two.
        histograms: int64 (blocks, 2, BINS), probabilities per block and class.
        regions: How the mIoU differs between folds, as `region_spread` has it; None with fewer than two.
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
        """Positions among the M tiles, lowest mIoU first."""
        return np.argsort(self.tiles["miou"], kind="stable")


def evaluate(run: RunReport) -> Evaluation:
    """Score the out-of-fold predictions of a run, per tile and pooled."""
    finished = np.isin(run.held_out_by, [fold.fold for fold in run.folds])
    # A training that overflowed may leave NaN; such a tile is reported as not predicted rather than as all background.
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
    """Return the 95 % band of the pooled mIoU at every threshold: two float arrays (BINS,); None with fewer than two blocks.

    Args:
        histograms: int64 (blocks, 2, BINS).
    """
    return score_band(counts_at_thresholds(histograms))


def headline(run: RunReport, evaluation: Evaluation) -> dict[str, Any]:
    """Return the figure to quote for a run: kind, which one it is, scores and interval.

    The one that the decision says to expect on new tiles, where it says so; else the nested one if there is one. A tuned figure is a
    little too good, since threshold and views were chosen on the tiles it is for.
    """
    decision = run.decision
    if decision is None or not run.decided_alone:
        kind = "not tuned" if decision is None else "tuned as an ensemble"
        return {"kind": kind, "scores": evaluation.scores, "interval": evaluation.interval}
    nested = decision.get("nested")
    quoted = decision.get("expected") or nested
    if quoted is None:
        return {"kind": "tuned", "scores": evaluation.scores, "interval": evaluation.interval}
    kind = "nested" if nested and quoted["scores"] == nested["scores"] and not run.kept_plain else "baseline"
    return {"kind": kind, "scores": quoted["scores"], "interval": quoted["interval"]}


def remarks(run: RunReport, evaluation: Evaluation) -> list[str]:
    """Return what a reader must know before trusting the figures, one sentence each."""
    found = []
    left_out = len(run.refs) - len(evaluation.index)
    if left_out:
        of_finished = int(np.isin(run.held_out_by, [fold.fold for fold in run.folds]).sum()) - len(evaluation.index)
        why = f"; {of_finished} of them lie in finished folds but their predictions are not finite numbers" if of_finished else ""
        found.append(f"{left_out} of {len(run.refs)} tiles have no out-of-fold prediction and are in none of the figures{why}.")
    if evaluation.index.size and evaluation.interval is None:
        found.append("No interval can be given: all tiles are of one block, which says nothing of others.")
    decision = run.decision
    if decision is None:
        return found + [f"This run is not tuned: threshold {BASELINE}, one view. marsls tune --run {run.name} chooses what is better."]
    folds = sorted(fold.fold for fold in run.folds)
    if sorted(decision["folds"]) != folds:
        before, now = (", ".join(map(str, numbers)) or "none" for numbers in (sorted(decision["folds"]), folds))
        found.append(f"The decision was taken on folds {before}, but finished are {now}. Run marsls tune --run {run.name} again.")
    elif (
        run.decided_alone
        and evaluation.scores
        and decision.get("tuned")
        and abs(decision["tuned"]["scores"]["miou"] - evaluation.scores["miou"]) > _AGREE
    ):
        found.append(
            f"The decision was taken on other predictions: it says mIoU {decision['tuned']['scores']['miou']:.4f} where these tiles give "
            f"{evaluation.scores['miou']:.4f}. Run marsls tune --run {run.name} again."
        )
    if not run.decided_alone:
        found.append(
            f"The decision is that of the ensemble of {', '.join(decision['runs'])}. Figures said to be the ensemble's are so; "
            "all others are this run's alone, at the ensemble's threshold and views."
        )
    elif not decision.get("nested"):
        found.append("The tuned figures are not nested (that needs two folds), so they are a little too good.")
    elif decision.get("baseline") and decision["nested"]["scores"]["miou"] <= decision["baseline"]["scores"]["miou"]:
        kept = ", so one view and threshold 0.5 are kept" if run.kept_plain else ""
        found.append(f"Tuning did not help: the nested mIoU is not above the baseline's{kept}.")
    return found


def not_comparable(runs: list[RunReport]) -> str | None:
    """Return why the runs' figures are not about the same thing, None if they are."""
    if len({run.fingerprint.get("sha256") for run in runs}) > 1:
        return "The runs were trained on different data: their figures cannot be compared."
    tiles = [{ref.id: int(fold) for ref, fold in zip(run.refs, run.held_out_by, strict=True)} for run in runs]
    finished = [{fold.fold for fold in run.folds} for run in runs]
    scored = [{tile for tile, fold in held.items() if fold in done} for held, done in zip(tiles, finished, strict=True)]
    if any(tiles != scored[0] for tiles in scored):
        return "The runs have predictions for different tiles: their figures cannot be compared until all have the same folds."
    if any(held != tiles[0] for held in tiles):
        return "The runs divide the tiles into folds differently: small differences between them mean nothing."
    return None
