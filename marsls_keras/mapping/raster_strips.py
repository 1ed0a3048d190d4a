"""Read and write rasters of any size in strips of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from marsls_keras.errors import InputError, RunError
from marsls_keras.files import atomic
from marsls_keras.mapping.components import Strip, Strips
from marsls_keras.progress import stage
from marsls_keras.temporary_files import temporary_beside

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_BLOCK = 512  # side in pixels of the tiles of written rasters
_STRIP = 2**24  # pixels of a strip, unless one row of tiles has more


class RasterStrips(Strips):
    """Mask of an open raster, in strips of rows.

    Args:
        raster: Raster of one band.
        threshold: Pixels of this value or more are landslide.
        rows: Rows of a strip; by default as many rows of blocks as have about 16 million pixels.

    Example:
        >>> RasterStrips(rasterio.open("probability.tif"), 0.5).read(0).mask.dtype  # doctest: +SKIP
        dtype('bool')
    """

    def __init__(self, raster: DatasetReader, threshold: float, rows: int | None = None):
        self.raster, self.threshold = raster, np.float32(threshold)
        self.rows = rows or max(1, _STRIP // raster.width // _BLOCK) * _BLOCK

    def __len__(self) -> int:
        return -(-self.raster.height // self.rows)

    def span(self, position: int) -> tuple[int, int]:
        """Return the first row of a strip, and that after its last."""
        return position * self.rows, min((position + 1) * self.rows, self.raster.height)

    def values(self, position: int, raster: DatasetReader, bands: int | list[int] = 1, halo: int = 0) -> Any:
        """Read the rows of a strip from a raster of the same grid, as a masked array.

        Values that are no numbers count as no data.

        Args:
            position: Number of the strip.
            raster: The raster.
            bands: One band, or several.
            halo: Rows more above and below, where there are any.
        """
        start, stop = self.span(position)
        start, stop = max(0, start - halo), min(raster.height, stop + halo)
        return np.ma.masked_invalid(
            raster.read(bands, window=((start, stop), (0, raster.width)), masked=True), copy=False
        )

    def read(self, position: int) -> Strip:
        """Return a strip."""
        values = self.values(position, self.raster, halo=1)
        known = ~np.ma.getmaskarray(values)
        first, last = position == 0, position == len(self) - 1
        known = np.pad(known, ((int(first), int(last)), (0, 0)))
        inside = values.data[1 - first : len(values) - (1 - last)]
        return Strip((inside >= self.threshold) & known[1:-1], known)


@contextmanager
def scratch(out: Path) -> Iterator[Path]:
    """Yield the path of a temporary file beside another, and remove it afterwards.

    Raises:
        RunError: If a raster cannot be read or written in the block; the message has GDAL's reason.

    Example:
        >>> with scratch(Path("mask.tif")) as path:
        ...     _ = path.write_bytes(b"")
        >>> path.exists()
        False
    """
    path = temporary_beside(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield path
    except OSError as error:  # rasterio's errors are OSError
        raise RunError(f"{out} could not be made: {error}. Is the disk full, or a raster damaged?") from error
    finally:
        with suppress(OSError):
            path.unlink()


def write_strips(
    path: Path,
    grid: RasterStrips,
    made: Callable[[int], np.ndarray],
    dtype: str,
    nodata: float,
    title: str,
) -> None:
    """Write a tiled GeoTIFF of one band strip by strip.

    Args:
        path: File to write.
        grid: Strips of a raster on the same grid.
        made: Function that returns the rows of a strip, (h, W).
        dtype: Type of the pixels.
        nodata: Value of pixels without data.
        title: Title of the progress that is shown.

    Example:
        >>> write_strips(path, grid, lambda i: grid.read(i).mask, "uint8", 255, "Writing")  # doctest: +SKIP
    """
    import rasterio

    source = grid.raster
    options = {"compress": "deflate", "zlevel": 1, "tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK}
    profile = {"driver": "GTiff", "count": 1, "width": source.width, "height": source.height, "dtype": dtype}
    place = {"crs": source.crs, "transform": source.transform, "nodata": nodata, "bigtiff": "if_safer"}
    with stage(title, len(grid)) as progress, rasterio.open(path, "w", **profile, **place, **options) as target:
        for position in range(len(grid)):
            start, stop = grid.span(position)
            target.write(made(position), 1, window=((start, stop), (0, source.width)))
            progress.advance()


def write_cog(plain: Path, out: Path) -> None:
    """Copy a raster of classes to a Cloud Optimised GeoTIFF, atomically; overviews show the most frequent class.

    Raises:
        RunError: If it cannot be written.

    Example:
        >>> write_cog(Path("plain.tif"), Path("mask.tif"))  # doctest: +SKIP
    """
    import rasterio.shutil

    options = {"compress": "deflate", "blocksize": _BLOCK, "overview_resampling": "mode", "bigtiff": "if_safer"}
    with atomic(out) as temporary:
        rasterio.shutil.copy(plain, temporary, driver="COG", **options)


def require_grid(raster: DatasetReader, expected: DatasetReader) -> None:
    """Check that two rasters have the same size and place.

    Raises:
        InputError: If they do not.

    Example:
        >>> require_grid(rasterio.open("probability.tif"), rasterio.open("mask.tif"))  # doctest: +SKIP
    """
    if raster.shape != expected.shape:
        found, right = (f"{each.height} x {each.width} pixels" for each in (raster, expected))
        raise InputError(f"{raster.name} has {found}, but {expected.name} has {right}: expected the same grid.")
    if not raster.transform.almost_equals(expected.transform, 1e-6 * abs(expected.transform.determinant) ** 0.5):
        raise InputError(f"{raster.name} lies elsewhere than {expected.name}: expected the same grid of pixels.")
