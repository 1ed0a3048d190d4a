"""Element of a decision: size below which components are removed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import numpy as np
from pydantic import Field

from marsls_keras.inference.decision_elements.element import Candidates, Card, MaskStep, register
from marsls_keras.inference.decision_elements.max_hole import HOLES
from marsls_keras.inference.postprocess import remove_components

AREAS = (*HOLES, 3072, 4096, 6144, 8192, 12288)
"""Candidate sizes in pixels; 0 removes none."""


class MinArea(MaskStep[int]):
    """Size in pixels below which components are removed, 0 for none.

    Example:
        >>> MIN_AREA.text(24)
        'components below 24 pixels removed'
    """

    name = "min_area"
    title = "least area of a component, pixels"
    default = 0
    form = Annotated[int, Field(ge=0, lt=2**31)]
    place = 90
    turn = 80

    def apply(self, value: int, masks: np.ndarray, known: np.ndarray, scale: float) -> np.ndarray:
        """Remove small components of masks; see `MaskStep`."""
        return remove_components(masks, value * scale, known)

    def offered(self, candidates: Candidates) -> bool:
        """Return whether folds are representative: the best size depends on the share of landslide."""
        return candidates.representative

    def options(self, candidates: Candidates) -> Iterable[int]:
        """Return the candidate sizes."""
        return AREAS

    def text(self, value: int) -> str:
        """Return the size as part of a sentence."""
        return f"components below {value} pixels removed"

    def card(self, value: int) -> Card:
        """Return the card of a size in the report."""
        return Card("least component", str(value), "pixels")


MIN_AREA = register(MinArea())
