"""Merge georeferenced tiles into one GeoTIFF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from marsls_keras.data.formats.georeference import require_one_grid
from marsls_keras.errors import InputError
from marsls_keras.files import atomic


def join_tiles(files: Sequence[Path], out: Path) -> None:
    """Merge tiles into one GeoTIFF with DEFLATE compression, placed by their georeferencing.

    Pixels without a tile are no-data: NaN in a float raster and 255 in a mask.

    Args:
        files: Single-band GeoTIFF tiles of one type and coordinate system.
        out: File to write.

    Raises:
        InputError: If the tiles do not lie on one grid of pixels (`require_one_grid`).
        RunError: If the file cannot be written.

    Example:
        >>> join_tiles(sorted(Path("out/mask").glob("*.tif")), Path("out/mask.tif"))  # doctest: +SKIP
    """
    import rasterio  # takes a while, and few join
    from rasterio.errors import RasterioError
    from rasterio.merge import merge

    require_one_grid(files)  # else merge would resample tiles silently
    with rasterio.open(files[0]) as tile:
        kind = tile.dtypes[0]
    empty = float("nan") if kind.startswith("float") else 255
    # Without block sizes the raster would get the strips of a tile, which are seldom valid blocks.
    options = {"driver": "GTiff", "compress": "deflate", "tiled": True, "blockxsize": 256, "blockysize": 256}
    with atomic(out) as temporary:
        try:
            merge(list(files), nodata=empty, dst_path=temporary, dst_kwds=options)
        except RasterioError as error:
            if isinstance(error, OSError):  # a full disk
                raise
            raise InputError(f"The tiles cannot be joined: {error}") from error
