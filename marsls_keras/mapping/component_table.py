"""Number the components of a mask in a raster, and gather the pixel values in each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from marsls_keras.errors import RunError
from marsls_keras.mapping.components import Components
from marsls_keras.mapping.grid import NO_DATA
from marsls_keras.mapping.raster_strips import RasterStrips, write_strips

if TYPE_CHECKING:
    from rasterio.io import DatasetReader


class Zone:
    """Sum, number, least and largest value of a band in each of N components, gathered in parts.

    Args:
        count: Number of components.

    Example:
        >>> zone = Zone(2)
        >>> zone.add(np.array([1, 1, 2]), np.ma.array([1.0, 3.0, 5.0]))
        >>> zone.add(np.array([2, 2]), np.ma.array([7.0, 99.0], mask=[False, True]))
        >>> zone.mean.tolist(), zone.range.tolist(), zone.largest.tolist()
        ([2.0, 6.0], [2.0, 2.0], [3.0, 7.0])
    """

    def __init__(self, count: int):
        self._sum, self._number = np.zeros(count + 1), np.zeros(count + 1, np.int64)
        self._least, self._largest = np.full(count + 1, np.inf), np.full(count + 1, -np.inf)

    def add(self, numbers: np.ndarray, values: np.ma.MaskedArray) -> None:
        """Add pixels.

        Args:
            numbers: Number of the component of each pixel, int (P,), from 1 on.
            values: Their values, (P,); masked ones do not count.
        """
        there = ~np.ma.getmaskarray(values)
        numbers, plain = numbers[there], values.data[there].astype(np.float64)
        self._sum += np.bincount(numbers, weights=plain, minlength=len(self._sum))
        self._number += np.bincount(numbers, minlength=len(self._sum))
        np.minimum.at(self._least, numbers, plain)
        np.maximum.at(self._largest, numbers, plain)

    @property
    def mean(self) -> np.ndarray:
        """Mean of each component, float (N,); NaN where there is no value."""
        return np.divide(self._sum, self._number, out=np.full(len(self._sum), np.nan), where=self._number > 0)[1:]

    @property
    def range(self) -> np.ndarray:
        """Largest minus least value of each component, float (N,); NaN where there is no value."""
        return np.subtract(self.largest, self._least[1:], out=np.full(len(self._sum) - 1, np.nan), where=self._there)

    @property
    def largest(self) -> np.ndarray:
        """Largest value of each component, float (N,); NaN where there is no value."""
        return np.where(self._there, self._largest[1:], np.nan)

    @property
    def _there(self) -> np.ndarray:
        return self._number[1:] > 0


def number_components(
    path: Path,
    components: Components,
    strips: RasterStrips,
    probability: DatasetReader,
    image: DatasetReader,
    bands: Sequence[str],
) -> dict[str, np.ndarray]:
    """Write a raster of the components' numbers, and return properties of each component's pixels.

    Args:
        path: GeoTIFF to write, int32; 0 where there is no component.
        components: Components of the mask, N of them.
        strips: Strips of the mask.
        probability: Raster of probability, on the same grid.
        image: The mapped raster, on the same grid; its values are scaled as the file says.
        bands: Names of its bands, in the order of the file.

    Returns:
        Columns "id", "pixels", "relief", "slope_mean", "probability_mean", "probability_max" and "at_edge", (N,) each.
        Relief is NaN without a band "dem", mean slope without a band "slope".

    Raises:
        RunError: If there are more components than int32 can number.

    Example:
        >>> number_components(path, components, strips, probability, image, BANDS)["pixels"].sum()  # doctest: +SKIP
        4096
    """
    count = components.count
    if count >= 2**31:
        raise RunError(f"The mask has {count} components, more than can be numbered. Raise the decision's least area.")
    area, edge = np.zeros(count + 1, np.int64), np.zeros(count + 1, bool)
    chances, zones = Zone(count), {name: Zone(count) for name in ("dem", "slope")}
    read = [name for name in zones if name in bands]

    def made(position: int) -> np.ndarray:
        found = components.read(position)
        area[found.number], edge[found.number] = found.area, found.at_edge
        numbers = found.number.astype(np.int32)[found.labels]
        inside = numbers > 0
        if inside.any():
            chances.add(numbers[inside], strips.values(position, probability)[inside])
            for name in read:
                band = bands.index(name) + 1
                values = strips.values(position, image, band)[inside].astype(np.float64)
                # Lowest float32 is no data, whether or not the file says so, as it is for the networks.
                values = np.ma.masked_less_equal(values, NO_DATA)
                zones[name].add(numbers[inside], values * image.scales[band - 1] + image.offsets[band - 1])
        return numbers

    write_strips(path, strips, made, "int32", 0, "Numbering landslides")
    return {
        "id": np.arange(1, count + 1),
        "pixels": area[1:],
        "relief": zones["dem"].range,
        "slope_mean": zones["slope"].mean,
        "probability_mean": chances.mean,
        "probability_max": chances.largest,
        "at_edge": edge[1:],
    }
