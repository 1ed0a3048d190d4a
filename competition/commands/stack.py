"""Stack rasters to a composite: tell their bands, and write the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marsls_keras.errors import InputError
from marsls_keras.mapping.band_sources import find_bands, parse_band
from marsls_keras.mapping.stack import stack


def stack_rasters(
    rasters: Sequence[str], bands: Sequence[str], like: str | None, out: Path, overwrite: bool = False
) -> dict[str, Any]:
    """Write the composite of rasters.

    Args:
        rasters: Files whose bands are named by their descriptions or file names.
        bands: Bands given as NAME=FILE or NAME=FILE:NUMBER.
        like: Raster whose grid the composite gets; that of the band red if None.
        out: File to write.
        overwrite: Whether an existing file is replaced.

    Returns:
        As `marsls_keras.mapping.stack.stack`.

    Raises:
        InputError: If `out` exists, or a raster or a name is wrong.
        RunError: If the file cannot be written.

    Example:
        >>> stack_rasters(["viking.tif", "dem.tif"], ["gray=ctx.tif"], None, Path("composite.tif"))  # doctest: +SKIP
    """
    if out.exists() and not overwrite:
        raise InputError(f"{out} is there already. Choose another name, or replace it with --overwrite.")
    return stack(find_bands(rasters, [parse_band(text) for text in bands]), out, like)
