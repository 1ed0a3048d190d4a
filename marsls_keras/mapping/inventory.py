"""From a map of probability to an inventory: the mask of a raster, and one polygon for each landslide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marsls_keras.errors import InputError
from marsls_keras.files import atomic
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.decision_elements.max_hole import MAX_HOLE
from marsls_keras.inference.decision_elements.min_area import MIN_AREA
from marsls_keras.mapping.component_table import number_components
from marsls_keras.mapping.components import Components, FilledStrips, SievedStrips, Strips
from marsls_keras.mapping.geodesy import MAX_EDGE, Body
from marsls_keras.mapping.polygons import outlines, simplified, write_layer
from marsls_keras.mapping.raster_strips import RasterStrips, require_grid, scratch, write_cog, write_strips
from marsls_keras.mapping.styles import add_style, mask_style, polygon_style, write_style
from marsls_keras.mapping.vector_file import require_geo
from marsls_keras.progress import stage

MASK, INVENTORY = "mask.tif", "landslides.gpkg"
"""Names of the mask and of the polygons in the folder of a map."""

LAYER = "landslides"
"""Name of the layer of polygons in an inventory."""

NO_DATA = 255
"""Value of a mask where nothing is known."""

_STEPS: dict[str, Callable[[Strips, float], Strips]] = {MAX_HOLE.name: FilledStrips, MIN_AREA.name: SievedStrips}
"""Post-processing over a whole raster, by the name of the decision's element."""


@dataclass(frozen=True)
class Inventory:
    """Summary of an inventory of landslides that was written.

    Attributes:
        path: The GeoPackage.
        landslides: Number of polygons.
        area_km2: Their area in km², on the body's ellipsoid.
        at_edge: Number of landslides at the edge of what was mapped, whose size is unknown.

    Example:
        >>> Inventory(Path("landslides.gpkg"), 12, 40.5, 3).landslides
        12
    """

    path: Path
    landslides: int
    area_km2: float
    at_edge: int


def write_mask(probability: Path, out: Path, decision: Decision, scale: float = 1.0, rows: int | None = None) -> None:
    """Threshold and post-process a raster of probability as a whole, in bounded memory, and write the mask.

    Components and holes are those of the whole raster, whether or not the decision was tuned across tile borders; the
    result equals `Decision.post_process` on the whole. The style of QGIS is written beside the mask.

    Args:
        probability: Raster of one band, float; no data or NaN where nothing is known.
        out: Cloud Optimised GeoTIFF to write, uint8: 1 landslide, 0 background, 255 no data. On the grid of
            `probability`.
        decision: Threshold, least area and largest hole.
        scale: Area of one pixel of the network's input, in pixels of the raster, by which areas are multiplied.
        rows: Rows that are in memory at a time; about 16 million pixels by default.

    Raises:
        RunError: If the mask cannot be written.

    Example:
        >>> write_mask(Path("probability.tif"), Path("mask.tif"), Decision(min_area=24))  # doctest: +SKIP
    """
    import rasterio

    with rasterio.open(probability) as source:
        grid = RasterStrips(source, decision.threshold, rows)
        strips: Strips = grid
        for step in decision.mask_steps:
            strips = _STEPS[step.name](strips, decision[step] * scale)

        def made(position: int) -> np.ndarray:
            strip = strips.read(position)
            return np.where(strip.known[1:-1], strip.mask, NO_DATA).astype(np.uint8)

        with scratch(out) as plain:
            write_strips(plain, grid, made, "uint8", NO_DATA, "Writing the mask")
            write_cog(plain, out)
    write_style(out, mask_style())


def write_inventory(
    mask: Path, probability: Path, raster: str | Path, out: Path, bands: Sequence[str], simplify: float = 1.0
) -> Inventory:
    """Write the landslides of a mask as polygons into a GeoPackage (layer "landslides"), one for each component.

    Columns: id; pixels; area_km2, geodesic, of the pixels; perimeter_km, of the simplified outline with its holes;
    length_km and width_km, of the smallest rectangle around it; relief and slope_mean, in the units of the raster, null
    without these bands; probability_mean and probability_max; at_edge, 1 for a landslide at the edge of what was
    mapped, whose size is unknown. The style of QGIS is stored in the file.

    Args:
        mask: Mask that `write_mask` wrote.
        probability: Raster of probability, on the same grid.
        raster: The mapped raster, a file or URL, on the same grid.
        out: GeoPackage to write.
        bands: Names of the bands of `raster`, in the order of the file; relief is of "dem", mean slope of "slope".
        simplify: Tolerance of the simplification of outlines in pixels; 0 keeps those of the pixels.

    Raises:
        InputError: If a package is missing, the mask has no coordinate system of a body, or the grids differ.
        RunError: If the GeoPackage cannot be written.

    Example:
        >>> write_inventory(mask, probability, raster, Path("landslides.gpkg"), BANDS).landslides  # doctest: +SKIP
        12
    """
    require_geo()
    import rasterio

    with rasterio.open(mask) as drawn, rasterio.open(probability) as values, rasterio.open(raster) as image:
        for other in (values, image):
            require_grid(other, drawn)
        if not drawn.crs:
            raise InputError(f"{mask} has no coordinate system, so that areas are unknown (gdal_edit.py -a_srs).")
        crs, pixel = drawn.crs.to_wkt(), float(abs(drawn.transform.determinant)) ** 0.5
        body = Body(crs, MAX_EDGE * pixel)
        strips = RasterStrips(drawn, 1)
        components = Components(strips)
        with scratch(out.with_suffix(".tif")) as plain:
            known = number_components(plain, components, strips, values, image, bands)
            with stage("Outlining landslides"), rasterio.open(plain) as numbers:
                exact = outlines(numbers, components.count)
    with stage("Measuring landslides"):
        shapes = simplified(exact, simplify * pixel)
        sides = [body.extent(shape) for shape in exact]
        measured = {
            "area_km2": np.array([body.area(shape) for shape in exact], float),
            "perimeter_km": np.array([body.perimeter(shape) for shape in shapes], float),
            "length_km": np.array([length for length, _ in sides], float),
            "width_km": np.array([width for _, width in sides], float),
        }
    fields = {"id": known.pop("id"), "pixels": known.pop("pixels"), **measured, **known}
    with atomic(out) as temporary:
        write_layer(temporary, LAYER, shapes, crs, fields)
        add_style(temporary, LAYER, polygon_style(), LAYER)
    return Inventory(out, components.count, float(measured["area_km2"].sum()), int(known["at_edge"].sum()))
