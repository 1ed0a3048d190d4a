"""Read a part of a raster with all bands that networks need, and tell where it has data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marsls_keras.bands.derived import DERIVED
from marsls_keras.bands.directions import Directions, sources_of
from marsls_keras.bands.names import expand_bands
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.derived.colours import COLOURS
from marsls_keras.data.derived.derive import derive
from marsls_keras.data.formats.no_data import fill_nearest
from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.mapping.lattice import Lattice
from marsls_keras.mapping.raster import Box, Raster


@dataclass(frozen=True)
class Canvas:
    """Part of a raster in canonical bands.

    Attributes:
        box: Where it lies.
        image: float32 (H, W, C), canonical, not normalised; NaN where a band has no data and was not filled.
        bands: Names of the C bands, derived ones last.
        known: bool (H, W), whether every band that a network reads has data.

    Example:
        >>> canvas = Canvas(Box(8, 0, 4, 4), np.zeros((4, 4, 1), np.float32), ("dem",), np.ones((4, 4), bool))
        >>> canvas.part(canvas.known, Box(9, 1, 2, 2)).shape
        (2, 2)
    """

    box: Box
    image: np.ndarray
    bands: tuple[str, ...]
    known: np.ndarray

    def part(self, values: np.ndarray, box: Box) -> np.ndarray:
        """Return the part of an array (H, W, …) of this canvas that lies in a box of the raster inside the canvas."""
        top, left = box.top - self.box.top, box.left - self.box.left
        return values[top : top + box.height, left : left + box.width]


def read_canvas(raster: Raster, box: Box, lattice: Lattice, bands: Sequence[str]) -> Canvas:
    """Read all pixels that the windows over a box see.

    Terrain bands are computed as from tiles: in cells of a tile's size, from the raster's upper left corner on, with
    the heights around each. For windows across the borders of tiles, gaps are filled in the same cells, as the reader
    of tiles fills them; cells without any data stay empty. For windows that are alone, gaps are filled in each window
    later.

    Args:
        raster: The raster.
        box: The box, such as a shard.
        lattice: The windows.
        bands: Bands of the networks' configurations.

    Example:
        >>> lattice = Lattice(128, 128, 64, alone=True)  # doctest: +SKIP
        >>> read_canvas(raster, Box(0, 0, 512, 512), lattice, ["all"]).image.shape  # doctest: +SKIP
        (576, 576, 7)
    """
    span, tile = lattice.span(box, raster.height, raster.width), lattice.tile
    own = raster.release.bands
    carried = Directions(expand_bands(bands, own)).carried
    added = [band for band in carried if band in DERIVED]
    terrain = [DERIVED[band].reach or 0 for band in added if band not in COLOURS]
    around = _in_cells(span.grown(1 + max(terrain)) if terrain else span, tile)
    image = raster.read(around)
    sources = {source for band in carried for source in sources_of(band)}
    known = ~np.isnan(image[..., [own.index(band) for band in sorted(sources)]]).any(-1)
    filled = image
    if added or not lattice.alone:
        filled = _filled_cells(image, tile)
    if added:
        derived = _derived(filled, raster, around, tile, bands)
        image = np.concatenate([image if lattice.alone else filled, derived], -1)
    elif not lattice.alone:
        image = filled
    whole = Canvas(around, image, (*own, *added), known)
    return Canvas(span, whole.part(image, span), whole.bands, whole.part(known, span))


def _in_cells(box: Box, tile: int) -> Box:
    """Return the smallest box of whole cells around a box."""
    top, left = box.top // tile * tile, box.left // tile * tile
    bottom, right = -(-(box.top + box.height) // tile) * tile, -(-(box.left + box.width) // tile) * tile
    return Box(top, left, bottom - top, right - left)


def _filled_cells(image: np.ndarray, tile: int) -> np.ndarray:
    """Return a copy whose gaps are filled from the nearest pixel of the cell; cells without any data stay NaN."""
    image = image.copy()
    for top in range(0, image.shape[0], tile):
        for left in range(0, image.shape[1], tile):
            cell = image[top : top + tile, left : left + tile]
            fill_gaps(cell)
    return image


def fill_gaps(image: np.ndarray) -> None:
    """Fill NaN in each band of an image (H, W, C) from the nearest pixel, in place, as the reader of tiles does.

    A band without any data becomes 0, unless all bands are without: then nothing changes.

    Example:
        >>> image = np.array([[[1.0], [np.nan]]])
        >>> fill_gaps(image)
        >>> image[0, :, 0]
        array([1., 1.])
    """
    known = ~np.isnan(image)
    if known.all() or not known.any():
        return
    for band in range(image.shape[2]):
        image[..., band] = fill_nearest(image[..., band], known[..., band])


def _derived(filled: np.ndarray, raster: Raster, box: Box, tile: int, bands: Sequence[str]) -> np.ndarray:
    """Return the derived bands of an image of whole cells, float32 (H, W, bands); NaN in cells without any data."""
    height, width, number = filled.shape
    rows, columns = height // tile, width // tile
    cells = filled.reshape(rows, tile, columns, tile, number).swapaxes(1, 2)
    there = ~np.isnan(cells).all((2, 3, 4))
    places = [(int(row), int(column)) for row, column in np.argwhere(there)]
    names = len(places)
    refs = tuple(
        TileRef(
            f"map/{row}_{column}",
            Path(raster.path),
            None,
            "images",
            "map",
            (row + box.top // tile, column + box.left // tile),
        )
        for row, column in places
    )
    blank = np.zeros((names, tile, tile), np.uint8)
    tiles = Tiles(refs, cells[there], blank, blank == 0, ("",) * names, ((),) * names, raster.release.name)
    found = derive(tiles, bands).images[..., number:] if places else np.zeros((0, tile, tile, 0), np.float32)
    whole = np.full((rows, columns, tile, tile, found.shape[-1]), np.nan, np.float32)
    whole[there] = found
    return whole.swapaxes(1, 2).reshape(height, width, -1)
