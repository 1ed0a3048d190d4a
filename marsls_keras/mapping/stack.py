"""Stack rasters of different grids, resolutions and projections to one seven-band composite."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

from marsls_keras.bands.names import BANDS
from marsls_keras.data.formats.tiff_chunks import require_written
from marsls_keras.datasets import RELEASES
from marsls_keras.errors import InputError
from marsls_keras.files import atomic
from marsls_keras.mapping.band_sources import BandSource
from marsls_keras.mapping.grid import NO_DATA, RasterGrid, crs_name, open_raster
from marsls_keras.mapping.raster import boxes
from marsls_keras.mapping.slope import write_slope
from marsls_keras.mapping.warp import Warp
from marsls_keras.progress import stage

ORDER = RELEASES["challenge"].order
"""Order of the bands in a composite, that of the challenge's tiles, whose raw values it holds."""

_BLOCK = 1024  # pixels a side that are resampled at a time


def stack(sources: Sequence[BandSource], out: str | Path, like: str | Path | None = None) -> dict[str, Any]:
    """Resample bands of rasters to one grid and write them as a GeoTIFF.

    Bands that are finer than the grid are averaged over its pixels, the others interpolated bilinearly. If there is no
    slope, it is computed from the DEM on its own grid (`write_slope`) and resampled as the others are. Values stay as
    they are, with scale and offset of their files applied: heights in metres, slope in degrees. No-data of a source,
    and ground that it does not cover, is no-data of its band. Memory does not depend on the size of the rasters.

    Args:
        sources: The bands; all of `BANDS` but slope must be there.
        out: File to write: float32, bands named and ordered as `ORDER`, no-data `NO_DATA`.
        like: Raster whose grid the composite gets; that of the band red by default.

    Returns:
        "out", "grid" (size, pixel and extent as text), "crs", and "bands": by name the source, how it was resampled,
        the side of its pixels in pixels of the grid, and the share of pixels with data.

    Raises:
        InputError: If a band is missing, a raster cannot be read or has no place, or does not overlap the grid.
        RunError: If the file cannot be written.

    Example:
        >>> stack(find_bands(["viking.tif", "dem.tif", "thermal.tif", "gray.tif"]), "composite.tif")  # doctest: +SKIP
    """
    out, known = Path(out), {source.name: source for source in sources}
    missing = [name for name in BANDS if name not in known and name != "slope"]
    if missing:
        raise InputError(
            f"No raster holds {', '.join(missing)}. Give it, as a file or as --band {missing[0]}=FILE; "
            f"found {', '.join(map(str, sources)) or 'no band'}."
        )
    for path in (like, *(source.path for source in sources)):
        if path is not None and out.exists() and Path(path).exists() and out.samefile(path):
            raise InputError(f"{out} is one of the rasters that are read. Choose another name.")
    with open_raster(like or known["red"].path) as raster:
        grid = RasterGrid.of(raster)
    with atomic(out) as temporary, ExitStack() as opened:
        if "slope" not in known:
            folder = Path(opened.enter_context(TemporaryDirectory(prefix=".slope-", dir=out.parent)))
            write_slope(known["dem"].path, known["dem"].band, folder / "slope.tif")
            known["slope"] = BandSource("slope", str(folder / "slope.tif"), 1)
        warps = {}
        for name in ORDER:
            raster = opened.enter_context(open_raster(known[name].path))
            if not 1 <= known[name].band <= raster.count:
                raise InputError(f"{known[name].path} has {raster.count} band(s), and no band {known[name].band}.")
            warps[name] = Warp.to_grid(raster, known[name].band, grid)
        filled = _write(temporary, warps, grid)
        require_written(temporary)
        if empty := [name for name in ORDER if not filled[name]]:
            lacking = known["dem" if empty[0] == "slope" else empty[0]]
            raise InputError(f"{lacking.path} has no data on the grid ({grid.to_text()}), so {empty[0]} is empty.")
    given = {source.name for source in sources}
    return {
        "out": str(out),
        "grid": grid.to_text(),
        "crs": crs_name(grid.crs),
        "bands": {
            name: {
                "source": str(known[name]) if name in given else f"slope of {known['dem'].path}",
                "resampling": warp.method,
                "pixel": warp.ratio,
                "data": filled[name] / (grid.height * grid.width),
            }
            for name, warp in warps.items()
        },
    }


def _write(out: Path, warps: dict[str, Warp], grid: RasterGrid) -> dict[str, int]:
    """Write the bands block by block; return the number of pixels with data of each."""
    profile = {"driver": "GTiff", "count": len(ORDER), "dtype": "float32", "nodata": NO_DATA, "BIGTIFF": "IF_SAFER"}
    profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "interleave": "pixel"}
    place = {"height": grid.height, "width": grid.width, "crs": grid.crs, "transform": grid.transform}
    blocks = list(boxes(grid.height, grid.width, _BLOCK))
    filled = dict.fromkeys(ORDER, 0)
    with rasterio.open(out, "w", **profile, **place) as file, stage("Stacking", len(blocks) * len(ORDER)) as done:
        file.descriptions = ORDER
        for row, column, height, width in blocks:
            bands = np.empty((len(ORDER), height, width), np.float32)
            for i, name in enumerate(ORDER):
                band = warps[name].read(row, column, height, width)
                known = np.isfinite(band)
                filled[name] += int(known.sum())
                bands[i] = np.where(known, band, NO_DATA)
                done.advance()
            file.write(bands, window=Window(column, row, width, height))
    return filled
