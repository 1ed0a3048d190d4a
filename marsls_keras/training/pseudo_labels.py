"""Pseudo-labels of a refit: confident predictions of unlabelled tiles that are used as labels, and their file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from marsls_keras.data.decoded.join import join
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.errors import InputError
from marsls_keras.files import DAMAGED_NPZ, atomic

UNCERTAIN = 255
"""Value of a pixel without pseudo-label."""

_FILE = "pseudo_labels.npz"


@dataclass(frozen=True)
class PseudoRecord:
    """Record origin and statistics of the pseudo-labels of a refit, for its full.json.

    Attributes:
        folder: Folder of the images.
        images_sha256: SHA-256 of the names and pixels of all images in it, by
            `marsls_keras.data.fingerprint.images_digest`.
        tiles: Number of images with pseudo-labels.
        left_out: Number of images without, since they are labelled tiles of the run.
        confidence: A pixel is landslide if its mean probability is at least this, background if it is at most 1 minus
            this.
        confident: Fraction of pixels that are either.
        landslide: Fraction of landslide among these.
        folds: SHA-256 of the weights of each fold that predicted, by its number as a string.
        decision: The elements of the decision that determine the mean probabilities: views, weights and averaging.

    Example:
        >>> RefitPlan.read(Path("runs/default/fold_full/full.json")).pseudo.confidence  # doctest: +SKIP
        0.9
    """

    folder: str
    images_sha256: str
    tiles: int
    left_out: int
    confidence: float
    confident: float
    landslide: float
    folds: dict[str, str]
    decision: dict[str, Any]


@dataclass(frozen=True)
class PseudoLabels:
    """Hold tiles and their pseudo-labels.

    Attributes:
        tiles: The N tiles; their masks are ignored.
        labels: uint8 (N, H, W): 0, 1, or `UNCERTAIN`.

    Example:
        >>> tiles, weights = PseudoLabels(unlabelled, labels).added_to(labelled)  # doctest: +SKIP
        >>> weights.min(), weights.max()  # doctest: +SKIP
        (0.0, 1.0)
    """

    tiles: Tiles
    labels: np.ndarray

    def added_to(self, labelled: Tiles) -> tuple[Tiles, np.ndarray]:
        """Append these tiles to M labelled tiles.

        Returns:
            All tiles, and the weights of their pixels, float32 (M + N, H, W): 0 where uncertain, else 1.
        """
        own = replace(self.tiles, masks=(self.labels == 1).astype(np.uint8))
        weights = np.concatenate(
            [np.ones(labelled.masks.shape, np.float32), (self.labels != UNCERTAIN).astype(np.float32)]
        )
        return join(labelled, own), weights

    def save(self, folder: Path) -> None:
        """Write the labels to pseudo_labels.npz in the folder of a refit, from which a resumed refit reads them."""
        with atomic(folder / _FILE) as temporary:
            np.savez_compressed(temporary, ids=np.array([ref.id for ref in self.tiles.refs]), labels=self.labels)


def saved_labels(folder: Path, tiles: Tiles) -> PseudoLabels:
    """Read the pseudo-labels of tiles that `PseudoLabels.save` wrote to the folder of a refit.

    Raises:
        InputError: If they are missing, damaged, or those of other tiles.

    Example:
        >>> saved_labels(Path("runs/default/fold_full"), tiles).labels.shape  # doctest: +SKIP
        (276, 128, 128)
    """
    path = folder / _FILE
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ids, labels = list(arrays["ids"]), arrays["labels"]
    except DAMAGED_NPZ as error:
        raise InputError(
            f"{path} cannot be read ({error}), so the refit cannot go on. Begin it anew with --overwrite."
        ) from None
    if labels.dtype != np.uint8 or not np.isin(labels, (0, 1, UNCERTAIN)).all():
        raise InputError(
            f"{path} holds other values than 0, 1 and {UNCERTAIN}, so the refit cannot go on. "
            "Begin it anew with --overwrite."
        )
    if ids != [ref.id for ref in tiles.refs] or labels.shape != tiles.masks.shape:
        raise InputError(
            f"{path} holds pseudo-labels of other tiles, so the refit cannot go on. Begin it anew with --overwrite."
        )
    return PseudoLabels(tiles, labels)
