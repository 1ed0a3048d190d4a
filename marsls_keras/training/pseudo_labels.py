"""Pseudo-labels: predictions of unlabelled tiles that a refit takes for their labels, where they are certain enough."""

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
"""The pseudo-label of a pixel that has none."""

_FILE = "pseudo_labels.npz"


@dataclass(frozen=True)
class PseudoRecord:
    """What is noted of the pseudo-labels of a refit, in its full.json.

    Attributes:
        folder: Folder of the images.
        images_sha256: Digest of the names and pixels of all images in it, as
            `marsls_keras.data.fingerprint.images_digest` has it.
        tiles: How many of them have pseudo-labels.
        left_out: How many have none since they are labelled tiles of the run.
        confidence: A pixel is landslide if its mean probability is at least this, background if it is at most 1 minus
            this.
        confident: Share of the pixels that are one or the other.
        landslide: Share of landslide among these.
        folds: SHA-256 of the weights of each fold that predicted, by its number as a string.
        decision: What of the decision the probabilities are made by: views, weights and averaging.

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
    """Pseudo-labelled tiles.

    Attributes:
        tiles: The tiles, N of them; their masks are not looked at.
        labels: uint8 (N, H, W): 0, 1, or `UNCERTAIN`.

    Example:
        >>> tiles, weights = PseudoLabels(unlabelled, labels).added_to(labelled)  # doctest: +SKIP
        >>> weights.min(), weights.max()  # doctest: +SKIP
        (0.0, 1.0)
    """

    tiles: Tiles
    labels: np.ndarray

    def added_to(self, labelled: Tiles) -> tuple[Tiles, np.ndarray]:
        """Return labelled tiles and these after them, and the weights of their pixels, float32 (M + N, H, W): 0 where uncertain, else 1."""
        own = replace(self.tiles, masks=(self.labels == 1).astype(np.uint8))
        weights = np.concatenate(
            [np.ones(labelled.masks.shape, np.float32), (self.labels != UNCERTAIN).astype(np.float32)]
        )
        return join(labelled, own), weights

    def save(self, folder: Path) -> None:
        """Write the labels to the folder of a refit, which goes on with them if it is stopped."""
        with atomic(folder / _FILE) as temporary:
            np.savez_compressed(temporary, ids=np.array([ref.id for ref in self.tiles.refs]), labels=self.labels)


def saved_labels(folder: Path, tiles: Tiles) -> PseudoLabels:
    """Return the pseudo-labels of tiles that `PseudoLabels.save` wrote to the folder of a refit.

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
            f"{path} holds other values than 0, 1 and {UNCERTAIN}, so the refit cannot go on. Begin it anew with --overwrite."
        )
    if ids != [ref.id for ref in tiles.refs] or labels.shape != tiles.masks.shape:
        raise InputError(
            f"{path} holds pseudo-labels of other tiles, so the refit cannot go on. Begin it anew with --overwrite."
        )
    return PseudoLabels(tiles, labels)
