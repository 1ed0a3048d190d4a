"""Element of a decision: size of the largest holes that are filled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import numpy as np
from pydantic import Field

from marsls_keras.inference.decision_elements.element import Candidates, Card, MaskStep, register
from marsls_keras.inference.postprocess import fill_holes

HOLES = (0, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
"""Candidate sizes in pixels; 0 fills none."""


class MaxHole(MaskStep[int]):
    """Size in pixels of the largest holes that are filled, 0 for none.

    Example:
        >>> MAX_HOLE.text(8)
        'holes up to 8 pixels filled'
    """

    name = "max_hole"
    title = "largest hole that is filled, pixels"
    default = 0
    form = Annotated[int, Field(ge=0, lt=2**31)]
    place = 80
    turn = 90

    def apply(self, value: int, masks: np.ndarray, known: np.ndarray, scale: float) -> np.ndarray:
        """Fill small holes of masks; see `MaskStep`."""
        return fill_holes(masks, value * scale, known)

    def offered(self, candidates: Candidates) -> bool:
        """Return whether folds are representative: the best size depends on the share of landslide."""
        return candidates.representative

    def options(self, candidates: Candidates) -> Iterable[int]:
        """Return the candidate sizes."""
        return HOLES

    def text(self, value: int) -> str:
        """Return the size as part of a sentence."""
        return f"holes up to {value} pixels filled"

    def card(self, value: int) -> Card:
        """Return the card of a size in the report."""
        return Card("filled holes up to", str(value), "pixels")


MAX_HOLE = register(MaxHole())
