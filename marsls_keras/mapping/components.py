"""Connected components of a raster larger than memory, found strip by strip.

A raster is read in strips of full rows. Components within one strip are labelled with SciPy; those that reach a
strip's first or last row are linked to their neighbours above and below. Only these border components are kept in
memory, at most half a raster's width for each border, so that memory does not grow with the number of components.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from marsls_keras.inference.postprocess import HOLE, LANDSLIDE, at_edge
from marsls_keras.progress import stage


@dataclass(frozen=True)
class Strip:
    """Rows of a mask.

    Attributes:
        mask: bool (h, W), True is landslide; False where nothing is known.
        known: bool (h + 2, W), whether a pixel is known; with one row more above and below, which is False beyond the
            raster.

    Example:
        >>> Strip(np.zeros((1, 2), bool), np.ones((3, 2), bool)).mask.shape
        (1, 2)
    """

    mask: np.ndarray
    known: np.ndarray


class Strips(ABC):
    """Mask of a raster that is read in strips of rows, from top to bottom.

    Example:
        >>> ArrayStrips(np.eye(4, dtype=bool), rows=2).read(1).mask.astype(int).tolist()
        [[0, 0, 1, 0], [0, 0, 0, 1]]
    """

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of strips."""

    @abstractmethod
    def read(self, position: int) -> Strip:
        """Return a strip; the same at each call."""


class ArrayStrips(Strips):
    """Strips of a mask in memory.

    Args:
        mask: bool (H, W).
        rows: Rows of a strip.
        known: bool (H, W), False where nothing is known; all by default.

    Example:
        >>> len(ArrayStrips(np.eye(5, dtype=bool), rows=2))
        3
    """

    def __init__(self, mask: np.ndarray, rows: int, known: np.ndarray | None = None):
        known = np.ones(mask.shape, bool) if known is None else known
        self.mask, self.known, self.rows = mask & known, np.pad(known, ((1, 1), (0, 0))), rows

    def __len__(self) -> int:
        return -(-len(self.mask) // self.rows)

    def read(self, position: int) -> Strip:
        """Return a strip."""
        start = position * self.rows
        return Strip(self.mask[start : start + self.rows], self.known[start : start + self.rows + 2])


@dataclass(frozen=True)
class LabelledStrip:
    """Components in a strip, each with properties of the whole component, also of its part in other strips.

    Attributes:
        strip: The strip.
        labels: int32 (h, W), 0 for none, else the number of the component's part within the strip, 1 … n.
        area: int64 (n + 1,), pixels of the whole component of each part; entry 0 is of no component.
        at_edge: bool (n + 1,), whether the whole component has an unknown neighbour.
        number: int64 (n + 1,), number of the component in the raster, from 1 on, in the order of their first pixels.

    Example:
        >>> Components(ArrayStrips(np.ones((4, 3), bool), rows=2), LANDSLIDE).read(1).area.tolist()
        [0, 12]
    """

    strip: Strip
    labels: np.ndarray
    area: np.ndarray
    at_edge: np.ndarray
    number: np.ndarray


class Components:
    """Connected components of a mask that is read in strips.

    The strips are read once by the constructor; `read` reads and labels a strip once more.

    Args:
        strips: The mask.
        neighbourhood: `LANDSLIDE` (8-connected) or `HOLE` (4-connected), which finds components of the background.
        title: Title of the progress that is shown.

    Attributes:
        count: Number of components.

    Example:
        >>> mask = np.array([[1, 0, 1], [1, 1, 1], [0, 0, 0], [1, 0, 0]], bool)
        >>> found = Components(ArrayStrips(mask, rows=1), LANDSLIDE)
        >>> found.count, [found.read(i).number[found.read(i).labels].tolist() for i in (0, 3)]
        (2, [[[1, 0, 1]], [[2, 0, 0]]])
    """

    def __init__(self, strips: Strips, neighbourhood: np.ndarray = LANDSLIDE, title: str = "Finding components"):
        self.strips, self.neighbourhood, self.title = strips, neighbourhood, title
        self.background = neighbourhood is HOLE
        self._scan()

    def _scan(self) -> None:
        """Read all strips, and link the parts of components across their borders."""
        parts: list[np.ndarray] = []  # of each strip, its parts that reach its first or last row
        areas, edges, pairs = [], [], [np.zeros((2, 0), np.int64)]
        inner = np.zeros(len(self.strips), np.int64)  # number of parts that are whole components
        above: np.ndarray | None = None  # ids of the parts in the last row of the strip before
        start = 0
        with stage(self.title, len(self.strips)) as progress:
            for position in range(len(self.strips)):
                _, labels, area, edge = self._label(position)
                border = np.unique(labels[[0, -1]])
                border = border[border > 0]
                ids = np.zeros(len(area), np.int64)
                ids[border] = np.arange(start + 1, start + 1 + len(border))
                if above is not None:
                    pairs.append(self._touching(above, ids[labels[0]]))
                parts.append(border)
                areas.append(area[border])
                edges.append(edge[border])
                inner[position] = len(area) - 1 - len(border)
                above, start = ids[labels[-1]], start + len(border)
                progress.advance()
        self._link(parts, np.concatenate(areas), np.concatenate(edges), np.concatenate(pairs, axis=1), inner)

    def _link(
        self, parts: list[np.ndarray], area: np.ndarray, edge: np.ndarray, pairs: np.ndarray, inner: np.ndarray
    ) -> None:
        """Join the border parts that touch to components, and number the components of the raster.

        Args:
            parts: Of each strip, its border parts.
            area: Of each border part, its pixels.
            edge: Of each border part, whether it has an unknown neighbour.
            pairs: (2, P), ids of border parts that touch; the first id is 1.
            inner: Of each strip, how many parts are no border parts.
        """
        total = len(area)
        first, second = pairs - 1
        graph = coo_array((np.ones(pairs.shape[1], bool), (first, second)), shape=(total, total))
        joined, root = connected_components(graph, directed=False)
        whole, edges = np.zeros(joined, np.int64), np.zeros(joined, bool)
        np.add.at(whole, root, area)
        np.logical_or.at(edges, root, edge)
        # A component is numbered where its first part comes: ids ascend with strips, and in each with its first pixels.
        _, firsts = np.unique(root, return_index=True)
        begins = np.zeros(total, bool)
        begins[firsts] = True
        self._starts = np.cumsum([0, *map(len, parts)])
        begun = np.concatenate([[0], np.cumsum(begins)])
        new = inner + begun[self._starts[1:]] - begun[self._starts[:-1]]
        self._before = np.concatenate([[0], np.cumsum(new)])
        self.count = int(self._before[-1])
        self._parts, self._begins = parts, begins
        self._area, self._edge = whole[root], edges[root]
        self._number = np.zeros(total, np.int64)
        numbers = np.zeros(joined, np.int64)
        for position, border in enumerate(parts):
            span = slice(self._starts[position], self._starts[position + 1])
            opens = np.ones(int(inner[position]) + len(border) + 1, bool)
            opens[0] = False
            opens[border] = begins[span]
            rank = self._before[position] + np.cumsum(opens)
            numbers[root[span][begins[span]]] = rank[border][begins[span]]
            self._number[span] = numbers[root[span]]

    def _label(self, position: int) -> tuple[Strip, np.ndarray, np.ndarray, np.ndarray]:
        """Return a strip, its labels, and area and edge of each part within the strip."""
        strip = self.strips.read(position)
        mask = ~strip.mask if self.background else strip.mask
        labels, number = ndimage.label(mask, self.neighbourhood[1])
        area = np.bincount(labels.ravel(), minlength=number + 1)
        area[0] = 0
        edge = np.zeros(number + 1, bool)
        edge[labels[at_edge(strip.known[None], self.neighbourhood)[0, 1:-1]]] = True
        edge[0] = False
        return strip, labels, area, edge

    def _touching(self, above: np.ndarray, below: np.ndarray) -> np.ndarray:
        """Return the pairs (2, P) of ids in two rows that touch."""
        reach = (-1, 0, 1) if self.neighbourhood[1, 0, 0] else (0,)
        width, found = len(above), []
        for shift in reach:
            upper, lower = above[max(0, -shift) : width - max(0, shift)], below[max(0, shift) : width + min(0, shift)]
            both = (upper > 0) & (lower > 0)
            found.append(np.stack([upper[both], lower[both]]))
        return np.unique(np.concatenate(found, axis=1), axis=1)

    def read(self, position: int) -> LabelledStrip:
        """Return a strip with its components."""
        strip, labels, area, edge = self._label(position)
        span = slice(self._starts[position], self._starts[position + 1])
        border = self._parts[position]
        opens = np.ones(len(area), bool)
        opens[0] = False
        opens[border] = self._begins[span]
        number = self._before[position] + np.cumsum(opens)
        number[0] = 0
        area[border], edge[border], number[border] = self._area[span], self._edge[span], self._number[span]
        return LabelledStrip(strip, labels, area, edge, number)


class FilledStrips(Strips):
    """Mask whose small holes are filled, as `marsls_keras.inference.postprocess.fill_holes` does in memory.

    Args:
        strips: The mask.
        max_hole: Holes of this many pixels or fewer are filled, unless they lie at the edge of what is known.

    Example:
        >>> ring = np.pad(np.pad(np.zeros((1, 1), bool), 1, constant_values=True), 1)
        >>> int(FilledStrips(ArrayStrips(ring, rows=2), 1).read(1).mask.sum())
        6
    """

    def __init__(self, strips: Strips, max_hole: float):
        self.max_hole = max_hole
        self.components = Components(strips, HOLE, "Finding holes")

    def __len__(self) -> int:
        return len(self.components.strips)

    def read(self, position: int) -> Strip:
        """Return a strip."""
        found = self.components.read(position)
        small = (found.area <= self.max_hole) & ~found.at_edge
        small[0] = False
        return Strip(found.strip.mask | small[found.labels], found.strip.known)


class SievedStrips(Strips):
    """Mask without its small components, as `marsls_keras.inference.postprocess.remove_components` does in memory.

    Args:
        strips: The mask.
        min_area: Components of fewer pixels are removed, unless they lie at the edge of what is known.

    Example:
        >>> int(SievedStrips(ArrayStrips(np.pad(np.eye(2, dtype=bool), 1), rows=2), 3).read(0).mask.sum())
        0
    """

    def __init__(self, strips: Strips, min_area: float):
        self.min_area = min_area
        self.components = Components(strips, LANDSLIDE)

    def __len__(self) -> int:
        return len(self.components.strips)

    def read(self, position: int) -> Strip:
        """Return a strip."""
        found = self.components.read(position)
        stays = (found.area >= self.min_area) | found.at_edge
        stays[0] = False
        return Strip(stays[found.labels], found.strip.known)
