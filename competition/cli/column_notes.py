"""Sentences below a table that say what its columns and words mean."""

from __future__ import annotations

NOTES = {
    "miou": "mIoU: mean of the IoU of landslide (IoU_fg) and of background (IoU_bg), over all pixels together.",
    "weights": "In brackets, which weights were best: last, those after the epoch; ema, their moving average; "
    "swa, the mean of the last epochs.",
    "epoch": "The best epoch was chosen on the same held-out tiles, so these figures are slightly optimistic.",
    "oof": "Out-of-fold: each tile is predicted by the fold that was not trained on it.",
    "views": "Views: flipped, rotated, shifted or scaled copies of a tile, whose predictions are averaged (TTA).",
    "nested": "Nested: each fold is scored with what was chosen on the other folds.",
    "alone": "Gain alone: with this element only; gain: added to those above it.",
    "interval": "95 % interval: jackknife over blocks of neighbouring tiles.",
}
"""What a term means, by the term."""


def notes(*terms: str) -> str:
    """Return the sentences for terms, one a line.

    Example:
        >>> notes("oof")
        'Out-of-fold: each tile is predicted by the fold that was not trained on it.'
    """
    return "\n".join(NOTES[term] for term in terms)
