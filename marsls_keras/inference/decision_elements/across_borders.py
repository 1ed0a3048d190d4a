"""Element of a decision: whether masks are post-processed across tile borders."""

from __future__ import annotations

from marsls_keras.inference.decision_elements.element import Element, register


class AcrossBorders(Element[bool]):
    """Whether components and holes are found in the raster that the tiles were cut from, not in each tile alone.

    The element is not searched: tuning sets it wherever the positions of the tiles are known.

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
        """Return False, since the neighbours of the tiles are unknown, and a note that says so; see `Element`."""
        return False, "components and holes end at the borders of each" if value else None

    def text(self, value: bool) -> str:
        """Return a phrase that follows those of the sizes."""
        return "both across tile borders"


ACROSS_BORDERS = register(AcrossBorders())
