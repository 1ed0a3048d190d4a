"""Purposes of a decision: prediction of a new region, or of tiles among labelled ones."""

from __future__ import annotations

from enum import StrEnum


class Purpose(StrEnum):
    """Purpose of a decision, on which its tuning and its expected scores depend.

    Attributes:
        REGION: Predict a new region, without labelled tiles.
        PUBLISHED: Predict tiles that lie among labelled ones, whose images windows see.

    Example:
        >>> Purpose("region").words
        'a new region'
    """

    REGION = "region"
    PUBLISHED = "published"

    @property
    def words(self) -> str:
        """Purpose as part of a sentence."""
        return "a new region" if self is Purpose.REGION else "tiles among labelled neighbours"

    @property
    def other(self) -> Purpose:
        """Purpose that is not this one."""
        return Purpose.PUBLISHED if self is Purpose.REGION else Purpose.REGION
