"""From a map of probability to an inventory: the mask of a raster, and one polygon for each landslide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from marsls_keras.inference.decision import Decision


@dataclass(frozen=True)
class Inventory:
    """Summary of an inventory of landslides that was written.

    Attributes:
        path: The GeoPackage.
        landslides: Number of polygons.
        area_km2: Their area in km², on the body's ellipsoid.
        mapped_km2: Area of the ground that was mapped.
        at_edge: Number of landslides at the edge of what was mapped, whose size is unknown.

    Example:
        >>> Inventory(Path("landslides.gpkg"), 12, 40.5, 900.0, 3).landslides
        12
    """

    path: Path
    landslides: int
    area_km2: float
    mapped_km2: float
    at_edge: int


def write_mask(probability: Path, out: Path, decision: Decision, scale: float = 1.0) -> None:
    """Threshold and post-process a raster of probability as a whole, in bounded memory.

    Args:
        probability: Raster of one band, float; no data where nothing is known.
        out: GeoTIFF to write, uint8: 1 landslide, 0 background, 255 no data. On the grid of `probability`.
        decision: Threshold, least area and largest hole; areas are of components of the whole raster.
        scale: Area of one pixel of the network's input, in pixels of the raster, by which areas are multiplied.
    """
    raise NotImplementedError


def write_inventory(
    mask: Path, probability: Path, raster: Path, out: Path, bands: Sequence[str], simplify: float = 1.0
) -> Inventory:
    """Write the landslides of a mask as polygons into a GeoPackage (layer "landslides"), one for each component.

    Args:
        mask: Mask that `write_mask` wrote.
        probability: Raster of probability, on the same grid.
        raster: The mapped raster, on the same grid.
        out: GeoPackage to write.
        bands: Names of the bands of `raster`, in the order of the file; relief is of "dem", mean slope of "slope".
        simplify: Tolerance of the simplification of outlines in pixels; 0 keeps those of the pixels.
    """
    raise NotImplementedError
