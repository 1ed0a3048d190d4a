"""Element of a decision: whether post-processing sees the picture that tiles were cut from, or each tile alone."""

from __future__ import annotations

from marsls_keras.inference.decision_elements.element import Element, register


class AcrossBorders(Element[bool]):
    """Whether components and holes are those of the picture that the tiles were cut from, not of each tile alone.

    It is not searched: it is so wherever it is known where the tiles of the folds lie.

    Example:
        >>> ACROSS_BORDERS.without_places(True)
        (False, 'components and holes end at the borders of each')
    """

    name = "across_borders"
    title = "across tile borders"
    default = False
    form = bool
    place = 100

    def without_places(self, value: bool) -> tuple[bool, str | None]:
        """Return False: nothing is known beyond the borders."""
        return False, "components and holes end at the borders of each" if value else None

    def text(self, value: bool) -> str:
        """Return it as part of a sentence, after the sizes."""
        return "both across tile borders"


ACROSS_BORDERS = register(AcrossBorders())
