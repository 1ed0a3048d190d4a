"""Generate pseudo-labels of unlabelled images for the refit on all tiles, from predictions of the run's folds.

This is self-training (Lee, "Pseudo-Label", ICML workshop 2013) with an ensemble as the teacher. If the images are those
that will be predicted later, it is transductive: the weights depend on these images, though not on their masks. Lee
uses every prediction as a label, with a weight that grows with the epochs. Here only pixels of confident predictions
have a label, with full weight from the first epoch.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from marsls_keras.data.decoded.join import require_alike
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.fingerprint import images_digest
from marsls_keras.data.splits import FULL, Fold
from marsls_keras.errors import InputError
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.decision_files import decision_of
from marsls_keras.inference.ensemble import predict_decided
from marsls_keras.inference.inputs import read_images
from marsls_keras.inference.prediction_inputs import PredictionInputs
from marsls_keras.inference.sliding_window import stitchable
from marsls_keras.models import has_detection
from marsls_keras.runs.run import Run
from marsls_keras.training.pseudo_labels import UNCERTAIN, PseudoLabels, PseudoRecord, saved_labels
from marsls_keras.training.refit import RefitPlan

logger = logging.getLogger(__name__)

_CONFIDENCE = 0.9
"""Default of --confidence."""


def require_pseudo(fold: str, folder: Path | None, confidence: float | None) -> None:
    """Check that the options --fold, --pseudo and --confidence go together.

    Raises:
        InputError: If there are pseudo-labels without a refit, or a confidence without pseudo-labels or out of range.

    Example:
        >>> require_pseudo("full", Path("phase2"), 0.9)
    """
    if folder is not None and fold != FULL:
        raise InputError(
            f"--pseudo {folder}: only the refit on all tiles trains on pseudo-labels. Add --fold full. Received: {fold}"
        )
    if confidence is None:
        return
    if folder is None:
        raise InputError(
            f"--confidence {confidence:g} is that of pseudo-labels. Give the folder of images with --pseudo."
        )
    if not 0.5 < confidence < 1:
        raise InputError(
            f"--confidence: expected a probability above 0.5 and below 1, such as 0.9. Received: {confidence:g}"
        )


def pseudo_labelled(
    run: Run, plan: RefitPlan, labelled: Tiles, folder: Path | None, confidence: float | None, resume: bool
) -> tuple[RefitPlan, PseudoLabels | None]:
    """Add pseudo-labels to a refit: predict the images of a folder with the run's folds, or read the saved labels.

    A resumed refit keeps the pseudo-labels that it began with, even if the folds have changed since; the images may
    have moved to another folder.

    Args:
        run: The run, with the finished folds that the plan names.
        plan: The plan of the refit.
        labelled: The labelled tiles of the run.
        folder: Folder of the unlabelled images; None for no pseudo-labels, or those that a resumed refit began with.
        confidence: As in `to_labels`; 0.9 by default.
        resume: Whether to resume a refit that has begun.

    Returns:
        The plan with a record of the pseudo-labels, and the pseudo-labels; the plan as it was and None if the refit has
        none.

    Raises:
        InputError: If the images cannot be used, no pixel is confident, or a resumed refit began with other images,
            another confidence or without pseudo-labels.

    Example:
        >>> plan, labels = pseudo_labelled(run, plan_refit(run), pool, Path("phase2"), 0.9, False)  # doctest: +SKIP
        >>> plan.pseudo.tiles  # doctest: +SKIP
        276
    """
    begun = plan.pseudo
    if resume and (run.fold_path(FULL) / "full.json").exists():
        if begun is None and folder is not None:
            raise InputError(
                f"--pseudo {folder}: the refit of run {run.name} began without pseudo-labels. "
                "Begin it anew with --overwrite."
            )
        if begun is not None and confidence not in (None, begun.confidence):
            raise InputError(
                f"--confidence {confidence:g}: the refit of run {run.name} began with {begun.confidence:g}. "
                "Leave it out, or begin anew with --overwrite."
            )
    folder = folder or (Path(begun.folder) if begun else None)
    if folder is None:
        return plan, None
    if begun is not None:
        averaged = Decision.from_values(begun.decision, run.fold_path(FULL) / "full.json")
        images = _read(run, folder, averaged.view_set, labelled)
        if images.digest != begun.images_sha256:
            raise InputError(
                f"--pseudo {folder}: the refit of run {run.name} began with other images, those that were in "
                f"{begun.folder} (SHA-256 {begun.images_sha256[:12]}, here {images.digest[:12]}). "
                "Give these, or begin anew with --overwrite."
            )
        return plan, saved_labels(run.fold_path(FULL), images.unlabelled)
    decision = decision_of([run], plan.folds)
    images = _read(run, folder, decision.view_set, labelled)
    unlabelled, confidence = images.unlabelled, _CONFIDENCE if confidence is None else confidence
    decision = decision.fit(unlabelled.refs)
    probability = predict_decided([run], plan.folds, images.inputs, decision).probability
    labels = to_labels(probability, confidence, has_detection(run.config.model.name, run.config.model.options))
    certain = labels != UNCERTAIN
    if not certain.any():
        raise InputError(
            f"--pseudo {folder}: none of the {labels.size:,} pixels is as certain as {confidence:g}. "
            "Lower --confidence, or train without."
        )
    record = PseudoRecord(
        folder=str(folder.resolve()),
        images_sha256=images.digest,
        tiles=images.inputs.number,
        left_out=images.left_out,
        confidence=confidence,
        confident=float(certain.mean()),
        landslide=float((labels == 1).sum() / certain.sum()),
        folds=run.digest(plan.folds),
        decision=decision.averaging_values(),
    )
    logger.info(
        f"Pseudo-labels of {images.inputs.number} images: {record.confident:.1%} of the pixels are certain "
        f"({confidence:g}), {record.landslide:.1%} of these landslide. The others weigh nothing."
    )
    return replace(plan, pseudo=record), PseudoLabels(unlabelled, labels)


@dataclass(frozen=True)
class _Images:
    """Hold the images of the folder --pseudo.

    Attributes:
        inputs: The unlabelled images, then all other images that overlapping windows may include.
        left_out: Number of images in the folder that are labelled tiles of the run.
        digest: Digest of all images in the folder.
    """

    inputs: PredictionInputs
    left_out: int
    digest: str

    @property
    def unlabelled(self) -> Tiles:
        """The unlabelled images as tiles; without a grid cell if the positions of some are unknown."""
        tiles = self.inputs.wanted
        if stitchable(tiles.refs):
            return tiles
        return replace(tiles, refs=tuple(replace(ref, cell=None) for ref in tiles.refs))


def _read(run: Run, folder: Path, views: str, labelled: Tiles) -> _Images:
    """Read the images of a folder, separate those that are labelled tiles of the run, and log their number.

    Raises:
        InputError: If the images cannot be used, or all of them are labelled tiles.
    """
    read = read_images(folder, run.config.data.release, [run], views)
    tiles, number = read.tiles, read.number
    require_alike(labelled, tiles, f"--pseudo {folder}")
    known = set(labelled.hashes)
    own = [i for i in range(number) if tiles.hashes[i] not in known]
    others = sorted(set(range(len(tiles))) - set(own))
    if left_out := number - len(own):
        logger.info(
            f"{left_out} of {number} images in {folder} are labelled tiles of run {run.name} and need no pseudo-labels."
        )
    if not own:
        raise InputError(
            f"--pseudo {folder}: all of the {number} images are labelled tiles of run {run.name}. Give others."
        )
    return _Images(PredictionInputs(tiles.subset([*own, *others]), len(own)), left_out, images_digest(read.wanted))


def to_labels(probability: np.ndarray, confidence: float, detection: bool = False) -> np.ndarray:
    """Threshold mean probabilities to pseudo-labels: 0, 1, or `UNCERTAIN` in between.

    Args:
        probability: Mean landslide probability, float32 (N, H, W).
        confidence: Pixels with this probability or more are 1, those with 1 - confidence or less are 0.
        detection: Whether the network has a detection head, which needs a label for the tile as a whole. A tile with
            uncertain pixels and without a landslide pixel has none, so all its pixels become uncertain.

    Returns:
        Pseudo-labels, uint8 (N, H, W).

    Example:
        >>> to_labels(np.array([[[0.97, 0.5, 0.02]]], np.float32), 0.9).tolist()
        [[[1, 255, 0]]]
    """
    labels = np.full(probability.shape, UNCERTAIN, np.uint8)
    labels[probability >= np.float32(confidence)] = 1
    labels[probability <= np.float32(1 - confidence)] = 0
    if detection:
        undecided = ~(labels == 1).any(axis=(1, 2)) & (labels == UNCERTAIN).any(axis=(1, 2))
        labels[undecided] = UNCERTAIN
    return labels


def pseudo_trained(runs: Sequence[Run], folds: Sequence[Fold]) -> dict[str, Any] | None:
    """Return the records of the pseudo-labels that refits were trained on, by run name; None if there are none.

    Each is also logged, so that a transductive training is visible in a submission.

    Example:
        >>> pseudo_trained([run], [0, 1]) is None  # doctest: +SKIP
        True
    """
    records: dict[str, Any] = {}
    for run in runs if FULL in folds else ():
        record = RefitPlan.read(run.fold_path(FULL) / "full.json").pseudo
        if record is not None:
            logger.info(
                f"Run {run.name} was also trained on pseudo-labels of {record.tiles} images in {record.folder} "
                "(transductive)."
            )
            records[run.name] = asdict(record)
    return records or None
