"""What a network's bands need while tiles are moved: vectors turn, and what hangs on a fixed direction is computed afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marsls_keras.data.derived import DERIVED, LATE, VECTORS


class Directions:
    """The bands that are carried while tiles are moved, and which of them turn.

    A component of a vector needs the other one; a late band, such as hillshade, needs those it is computed from.

    Args:
        bands: The network's bands.

    Attributes:
        carried: Names of the C bands that are carried; the network's own, if none of them has a direction.
        late: Names of the late bands among the network's.
        vectors: (row, column, sign) of each vector: positions of its components among the carried bands; the component down the rows is
            `sign` times that band.
        rest: float32 (C, C), see `matrices`.
        parts: float32 (2, 2, C, C), likewise.
        fixed: Names of the carried bands whose values mean something that a stretch would destroy: components of vectors, and what a late
            band is computed from.
    """

    def __init__(self, bands: Sequence[str]) -> None:
        self.late = tuple(band for band in bands if band in LATE)
        partners = {a: b for rows, columns, _ in VECTORS for a, b in ((rows, columns), (columns, rows))}
        wanted = [name for band in bands for name in LATE.get(band, (band,))]
        self.carried = tuple(dict.fromkeys([*wanted, *(partners[name] for name in wanted if name in partners)]))
        at = {band: i for i, band in enumerate(self.carried)}
        self.vectors = tuple((at[rows], at[columns], sign) for rows, columns, sign in VECTORS if rows in at)
        directed = {self.carried[i] for row, column, _ in self.vectors for i in (row, column)}
        self.fixed = tuple(band for band in self.carried if band in directed or any(band in LATE[name] for name in self.late))
        self.rest = np.diag([float(band not in directed) for band in self.carried]).astype(np.float32)
        self.parts = np.zeros((2, 2, len(self.carried), len(self.carried)), np.float32)
        for row, column, sign in self.vectors:
            self.parts[0, 0, row, row] = self.parts[1, 1, column, column] = 1
            self.parts[0, 1, row, column] = self.parts[1, 0, column, row] = sign

    def matrices(self, turns: np.ndarray) -> np.ndarray:
        """Return what turning does to the carried bands.

        Args:
            turns: float (..., 2, 2), from a vector (down the rows, along the columns) to what it is after the turn.

        Returns:
            float32 (..., C, C), by which the bands of a pixel, a column vector, are multiplied from the left: `rest` plus the sum of
            `parts` times the elements of the turn.
        """
        return self.rest + np.tensordot(turns.astype(np.float32), self.parts, 2)


def sources_of(band: str) -> tuple[str, ...]:
    """Return the bands of tiles that a band comes from: itself, if it is none of the derived ones."""
    return DERIVED[band].sources if band in DERIVED else (band,)
