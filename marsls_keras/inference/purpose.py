"""What a decision is for."""

from __future__ import annotations

from enum import StrEnum


class Purpose(StrEnum):
    """What a decision is for; it is chosen and measured differently for each.

    Attributes:
        REGION: A region of which nothing but the images to predict is known.
        PUBLISHED: Tiles that lie among labelled ones, whose images windows see.

    Example:
        >>> Purpose("region").words
        'a new region'
    """

    REGION = "region"
    PUBLISHED = "published"

    @property
    def words(self) -> str:
        """The purpose as it reads in a sentence."""
        return "a new region" if self is Purpose.REGION else "tiles among labelled neighbours"

    @property
    def other(self) -> Purpose:
        """The other purpose."""
        return Purpose.PUBLISHED if self is Purpose.REGION else Purpose.REGION
