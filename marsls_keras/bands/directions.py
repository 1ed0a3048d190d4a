"""Rotate and mirror the bands of a tile that are components of vectors.

Bands that depend on a fixed direction, such as hillshade, are computed afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from marsls_keras.bands.derived import DERIVED, LATE, VECTORS


class Directions:
    """The bands that augmentation must carry for a network, and which of them are components of vectors.

    A component of a vector needs the other one; a late band, such as hillshade, needs its source bands.

    Args:
        bands: The network's bands.

    Attributes:
        carried: Names of the C bands that are carried; the network's own if none of them depends on a direction.
        late: Names of the late bands among the network's.
        vectors: (row, column, sign) of each vector: positions of its components among the carried bands; the component
            down the rows is `sign` times that band.
        fixed: Names of the carried bands whose values must not be rescaled: components of vectors, and the sources of
            late bands.

    Example:
        >>> directions = Directions(["red", "aspect_sin"])
        >>> directions.carried, directions.fixed
        (('red', 'aspect_sin', 'aspect_cos'), ('aspect_sin', 'aspect_cos'))
    """

    def __init__(self, bands: Sequence[str]) -> None:
        self.late = tuple(band for band in bands if band in LATE)
        partners = {a: b for rows, columns, _ in VECTORS for a, b in ((rows, columns), (columns, rows))}
        wanted = [name for band in bands for name in LATE.get(band, (band,))]
        self.carried = tuple(dict.fromkeys([*wanted, *(partners[name] for name in wanted if name in partners)]))
        at = {band: i for i, band in enumerate(self.carried)}
        self.vectors = tuple((at[rows], at[columns], sign) for rows, columns, sign in VECTORS if rows in at)
        directed = {self.carried[i] for row, column, _ in self.vectors for i in (row, column)}
        self.fixed = tuple(
            band for band in self.carried if band in directed or any(band in LATE[name] for name in self.late)
        )
        self._partner = np.arange(len(self.carried))
        # Masks of the first and second components; signs to and from the other component.
        self._along, self._across = np.zeros((2, 2, len(self.carried)), np.float32)
        for row, column, sign in self.vectors:
            self._partner[[row, column]] = column, row
            self._along[0, row] = self._along[1, column] = 1
            self._across[0, row] = self._across[1, column] = sign

    def turn(self, image: Any, turns: Any) -> Any:
        """Apply a linear map, such as a rotation, to the vectors among the carried bands; an array or a tensor.

        It is computed element by element, since a matrix product takes several times as long.

        Args:
            image: float32 (..., C).
            turns: float32 (..., 2, 2), matrices that map a vector (down the rows, along the columns) to the turned one;
                all dimensions but the last two are broadcast to those of the image's pixels.
        """
        keep = (
            turns[..., 0, 0, None] * self._along[0] + turns[..., 1, 1, None] * self._along[1] + (1 - self._along.sum(0))
        )
        swap = turns[..., 0, 1, None] * self._across[0] + turns[..., 1, 0, None] * self._across[1]
        return image * keep + take(image, self._partner) * swap

    def mirror(self, image: Any, sides: Any) -> Any:
        """Mirror the vectors among the carried bands; an array or a tensor.

        Components down the rows are multiplied by sides[..., 0], those along the columns by sides[..., 1].

        Args:
            image: float32 (..., C).
            sides: float32 (..., 2), of 1 and -1.
        """
        return image * (
            sides[..., 0, None] * self._along[0] + sides[..., 1, None] * self._along[1] + (1 - self._along.sum(0))
        )


def take(image: Any, bands: Any) -> Any:
    """Select bands of an image (..., C) by their positions; an array or a tensor.

    Example:
        >>> take(np.array([[1.0, 2.0, 3.0]]), [2, 0])
        array([[3., 1.]])
    """
    if isinstance(image, np.ndarray):
        return np.take(image, bands, -1)
    import tensorflow as tf  # imported late, since `check` works without it and starts sooner

    return tf.gather(image, bands, axis=-1)


def sources_of(band: str) -> tuple[str, ...]:
    """Return the bands of tiles that a band is computed from; the band itself if it is not derived.

    Example:
        >>> sources_of("ndvi"), sources_of("red")
        (('nir', 'red'), ('red',))
    """
    return DERIVED[band].sources if band in DERIVED else (band,)
