"""Cut a composite and its labels to a dataset of tiles, as MMLSv2 was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from marsls_keras.data.formats.tiff_chunks import require_written
from marsls_keras.errors import InputError
from marsls_keras.files import atomic_folder, write_json
from marsls_keras.mapping.grid import NO_DATA, RasterGrid, open_raster
from marsls_keras.mapping.labels import Labels, open_labels
from marsls_keras.mapping.partition import SHARES, distribution, partition, plot_histogram
from marsls_keras.mapping.raster import Box, Raster
from marsls_keras.progress import tracked

ISOLATED = "isolated"
"""Folder of the tiles of the region that is held out, beside train, val and test."""

FAMILY = "mmls_v2"
"""Family of the releases whose rasters are cut: MMLSv2, and the challenge."""

_BLOCK = 2  # cells a side of the blocks that stay together


@dataclass(frozen=True)
class TileCutting:
    """How a composite is cut.

    Attributes:
        size: Pixels a side of a tile, and the distance between tiles.
        isolated_east_of: Map x of the boundary; what lies to the east of it is the isolated region. None for none.
        keep_empty: Whether tiles without landslide are kept.
        shares: Share of the tiles of each split.
        seed: Random seed of the partition.
        layer: Layer of the inventory; by default the only one that holds polygons.

    Example:
        >>> TileCutting(isolated_east_of=-4_200_000.0).size
        128
    """

    size: int = 128
    isolated_east_of: float | None = None
    keep_empty: bool = False
    shares: Mapping[str, float] | None = None
    seed: int = 0
    layer: str | None = None


@dataclass(frozen=True)
class _Cut:
    """A tile that is to be written: its corner in pixels, its cell, the block that it belongs to, its labels' share."""

    row: int
    column: int
    cell: tuple[int, int]
    block: tuple[int, int]
    region: str
    ratio: float = 0.0

    @property
    def name(self) -> str:
        return f"col{self.cell[1]:05d}_row{self.cell[0]:05d}"


def tile_dataset(composite: str | Path, labels: str | Path, out: str | Path, cutting: TileCutting) -> dict[str, Any]:
    """Write images and masks of a region as a dataset that `check` and `train` take; it appears whole or not at all.

    Labels are brought to the composite's grid (`open_labels`). Tiles lie on a grid of `size` pixels without overlap; a
    row or column that would be cut off gets tiles that end at the border, and overlap those before (Paheding et al.
    2026, section 2.3). These have a number of their own in names, one more than the next, since they do not continue
    their neighbours. Each tile is a GeoTIFF, named colCCCCC_rowRRRRR. Images keep the values of the composite, and
    have `NO_DATA` where it has none. Tiles without any data are left out, and those without landslide if
    `keep_empty` is False.

    Tiles are partitioned in blocks of 2 x 2 cells (`partition`); blocks whose tiles overlap are one. The isolated
    region gets a grid of its own and is written to `out/isolated`, which no training reads.

    Args:
        composite: Raster with the seven bands of the challenge or of MMLSv2.
        labels: Mask or inventory.
        out: Folder to write; it must not exist or must be empty.
        cutting: How it is cut.

    Returns:
        "out", "release", "labels" (how they were aligned), "splits" (the table of `distribution`), and the number of
        tiles left out, "empty" and "without_data".

    Raises:
        InputError: If the composite or the labels cannot be used, the boundary leaves a region without tiles, or there
            are too few blocks.
        RunError: If the files cannot be written.

    Example:
        >>> tile_dataset("composite.tif", "inventory.gpkg", "data", TileCutting())["release"]  # doctest: +SKIP
        'challenge'
    """
    with open_raster(composite) as opened:
        grid = RasterGrid.of(opened)
    raster = Raster.open(composite, family=FAMILY)
    planned = list(_planned(grid, cutting))
    with open_labels(labels, grid, cutting.layer) as marked:
        cuts, left = _chosen(planned, raster, marked, cutting)
        if not any(cut.ratio for cut in cuts):
            raise InputError(
                f"{labels} marks no landslide on the composite: no pixel there has the value 1, or lies in a polygon. "
                f"{marked.note}"
            )
        base = [cut for cut in cuts if cut.region != ISOLATED]
        shares = cutting.shares or SHARES
        splits = partition([cut.ratio for cut in base], [cut.block for cut in base], shares, cutting.seed)
        parts = {split: [cut for cut, own in zip(base, splits, strict=True) if own == split] for split in shares}
        parts |= {ISOLATED: [cut for cut in cuts if cut.region == ISOLATED]}
        parts = {split: found for split, found in parts.items() if found}
        ratios = {split: [cut.ratio for cut in found] for split, found in parts.items()}
        with atomic_folder(out) as folder:
            for split, found in parts.items():
                for cut in tracked(f"Writing tiles of {split}", found):
                    box = Box(cut.row, cut.column, cutting.size, cutting.size)
                    _write_tile(folder / split, cut.name, raster.stored(box), marked.read(*box), grid.window(*box))
            plot_histogram(ratios, folder / "foreground.png")
            write_json(folder / "partition.json", _record(composite, labels, cutting, shares, raster, parts))
        note = marked.note
    table = distribution(ratios)
    return {"out": str(out), "release": raster.release.name, "labels": note, "splits": table, **left}


def _planned(grid: RasterGrid, cutting: TileCutting) -> Iterator[_Cut]:
    """Yield the tiles of both regions, in reading order."""
    size = cutting.size
    regions = {"base": (0, grid.width)}
    if cutting.isolated_east_of is not None:
        regions = _regions(grid, cutting.isolated_east_of)
    first = 0
    for region, (left, right) in regions.items():
        rows, columns = _axis(0, grid.height, size), _axis(left, right, size)
        if not rows or not columns:
            raise InputError(
                f"The {region} region has {right - left} x {grid.height} pixels, less than a tile of {size} x {size}."
            )
        for row, i, down in rows:
            for column, k, across in columns:
                yield _Cut(row, column, (i, first + k), (down, first + across), region)
        first += columns[-1][1] + 2  # the regions are not neighbours


def _axis(start: int, end: int, size: int) -> list[tuple[int, int, int]]:
    """Return first pixel, cell and block of each tile along an axis, from `start` to before `end`.

    The last one may overlap the one before; it shares its block, and its cell is not the next.
    """
    number = (end - start) // size
    found = [(start + i * size, i, i // _BLOCK) for i in range(number)]
    if found and start + number * size < end:
        found.append((end - size, number + 1, found[-1][2]))
    return found


def _regions(grid: RasterGrid, x: float) -> dict[str, tuple[int, int]]:
    """Return the columns of the base region and of the isolated one, to the east of x."""
    if not grid.upright:
        raise InputError("--isolated-east-of: the composite is rotated, so no column is a boundary. Warp it first.")
    column = round(grid.pixels(x, grid.transform.f)[0])
    if not 0 < column < grid.width:
        raise InputError(f"--isolated-east-of {x:g} lies outside the composite: {grid.to_text()}.")
    west, east = (0, column), (column, grid.width)
    return {"base": west, ISOLATED: east} if grid.transform.a > 0 else {"base": east, ISOLATED: west}


def _chosen(
    planned: list[_Cut], raster: Raster, labels: Labels, cutting: TileCutting
) -> tuple[list[_Cut], dict[str, int]]:
    """Return the tiles that are kept, with their share of landslide, and the numbers of those that are not."""
    kept, left = [], {"empty": 0, "without_data": 0}
    for cut in tracked("Reading labels", planned):
        box = Box(cut.row, cut.column, cutting.size, cutting.size)
        ratio = float(labels.read(*box).mean())
        if not ratio and not cutting.keep_empty:
            left["empty"] += 1
        elif np.isnan(raster.stored(box)).all():
            left["without_data"] += 1
        else:
            kept.append(_Cut(cut.row, cut.column, cut.cell, cut.block, cut.region, ratio))
    return kept, left


def _write_tile(folder: Path, name: str, image: np.ndarray, mask: np.ndarray, place: RasterGrid) -> None:
    """Write an image (H, W, C) and its mask (H, W) as GeoTIFFs."""
    shared = {"driver": "GTiff", "crs": place.crs, "transform": place.transform, "compress": "lzw"}
    shared |= {"height": place.height, "width": place.width}
    filled = np.where(np.isnan(image), np.float32(NO_DATA), image)
    for kind, bands, options in (
        ("images", np.moveaxis(filled, -1, 0), {"nodata": NO_DATA, "interleave": "pixel"}),
        ("masks", mask[None], {}),
    ):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        target = folder / kind / f"{name}.tif"
        with rasterio.open(target, "w", count=len(bands), dtype=bands.dtype, **shared, **options) as file:
            file.write(bands)
        require_written(target)


def _record(
    composite: str | Path,
    labels: str | Path,
    cutting: TileCutting,
    shares: Mapping[str, float],
    raster: Raster,
    parts: Mapping[str, list[_Cut]],
) -> dict[str, Any]:
    """Return the content of partition.json: what it takes to cut the same tiles again, and each tile's share."""
    return {
        "composite": str(composite),
        "composite_digest": raster.digest(),
        "labels": str(labels),
        "size": cutting.size,
        "isolated_east_of": cutting.isolated_east_of,
        "keep_empty": cutting.keep_empty,
        "shares": dict(shares),
        "seed": cutting.seed,
        "tiles": {
            split: {cut.name: {"row": cut.row, "column": cut.column, "landslide": cut.ratio} for cut in found}
            for split, found in parts.items()
        },
    }
