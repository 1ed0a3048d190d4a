"""Map of a whole region in the report: images of its connected tiles, errors, and outlines of landslides."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from marsls_keras.bands.names import RGB
from marsls_keras.data.formats.no_data import fill_nearest
from marsls_keras.data.grid.stitching import pieces
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.report.outline import outline_path
from marsls_keras.report.run_summary import Evaluation, RunReport
from marsls_keras.report.tile_pictures import ERROR_COLOURS, hillshade, limits, steepness_of

MAX_PIXELS = 6_000_000
"""Largest number of pixels of tiles that are shown at full resolution; more are reduced, for a page of a few MB."""

_SAMPLE = 64  # tiles whose pixels set the colours
_QUALITY = 80  # of WebP


@dataclass(frozen=True)
class _Look:
    """How images of tiles are coloured, the same for all of a run.

    Attributes:
        rgb: Positions of red, green and blue in the bands, or of the first band three times.
        low: Value that is black.
        high: Value that is white.
        dem: Position of the heights, None without.
        steepness: Step in height that is drawn as 35°.
        factor: Pixels of a tile that become one of the picture, in each direction.
    """

    rgb: tuple[int, ...]
    low: float
    high: float
    dem: int | None
    steepness: float
    factor: int

    @classmethod
    def of(cls, run: RunReport, placed: Sequence[int]) -> _Look:
        """Choose the look of a run by a sample of the tiles on its grid."""
        bands = list(run.bands)
        rgb = tuple(map(bands.index, RGB)) if all(band in bands for band in RGB) else (0, 0, 0)
        dem = bands.index("dem") if "dem" in bands else None
        sample = [np.asarray(run.images[i]) for i in placed[:: max(1, len(placed) // _SAMPLE)]]
        low, high = limits(np.stack([image[..., list(rgb)] for image in sample]))
        steep = 0.0 if dem is None else float(np.median([steepness_of(image[..., dem]) for image in sample]))
        factor = math.ceil(math.sqrt(len(placed) * np.prod(run.masks.shape[1:]) / MAX_PIXELS))
        return cls(rgb, low, high, dem, steep, factor)


def region_maps(run: RunReport, evaluation: Evaluation) -> list[dict[str, Any]]:
    """Draw a map of each raster of a run, for tiles whose position is known.

    Args:
        run: The run.
        evaluation: Its scores; tiles without an out-of-fold prediction have truth alone.

    Returns:
        Of each raster "name", "width" and "height" in pixels, "view" (the part that holds tiles), "factor" of the
        reduction of images, "alt", "has_relief", and "pieces": of each group of connected tiles its place ("x", "y",
        "width", "height"), its pictures as data URLs ("rgb", "relief", "errors"), and the outlines of "truth" and
        "prediction" as SVG paths in half pixels. Empty if no position is known.

    Example:
        >>> from marsls_keras.data.index.tile_ref import TileRef
        >>> from marsls_keras.report.run_summary import FoldReport, evaluate
        >>> masks = np.eye(8, dtype="uint8")[None]
        >>> tile = {"refs": (TileRef("a", None, None, "train", "base", (3, 5)),), "blocks": ["a"], "bands": ("gray",)}
        >>> arrays = {"images": masks[..., None], "masks": masks, "probability": 0.9 * masks, "predicted": masks}
        >>> fold = FoldReport(0, [], {}, {})
        >>> run = RunReport("default", "", {}, [fold], [], None, held_out_by=np.array([0]), **tile, **arrays)
        >>> (drawn,) = region_maps(run, evaluate(run))
        >>> drawn["name"], drawn["width"], drawn["pieces"][0]["errors"][:22]
        ('base', 8, 'data:image/png;base64,')
    """
    placed = [i for i, ref in enumerate(run.refs) if ref.cell is not None]
    if not placed or len({(run.refs[i].raster, run.refs[i].cell) for i in placed}) < len(placed):
        return []
    look, scored = _Look.of(run, placed), np.zeros(len(run.refs), bool)
    scored[evaluation.index] = True
    rasters = dict.fromkeys(run.refs[i].raster for i in placed)
    return [_raster_map(run, look, [i for i in placed if run.refs[i].raster == name], scored, name) for name in rasters]


def _raster_map(run: RunReport, look: _Look, members: Sequence[int], scored: np.ndarray, name: str) -> dict[str, Any]:
    """Draw the map of one raster."""
    height, width = run.masks.shape[1:]
    cells = np.array([run.refs[i].cell for i in members])
    corner = cells.min(axis=0)
    # The grid that groups the tiles may shorten gaps; the map keeps them.
    grid = TileGrid.of([run.refs[i] for i in members], height, width, reach=1)
    drawn = [_piece(run, look, np.array(members)[group], corner, scored) for group in pieces(grid)]
    rows, columns = cells.max(axis=0) - corner + 1
    return {
        "name": name,
        "width": int(columns) * width,
        "height": int(rows) * height,
        "factor": look.factor,
        "has_relief": look.dem is not None,
        "pieces": drawn,
        "alt": f"Map of {len(members)} tiles in {len(drawn)} connected pieces, with true and predicted landslides",
        "unscored": int((~scored[list(members)]).sum()),
    }


def _piece(run: RunReport, look: _Look, members: np.ndarray, corner: np.ndarray, scored: np.ndarray) -> dict[str, Any]:
    """Draw a group of connected tiles, at its place in the raster."""
    height, width = run.masks.shape[1:]
    cells = np.array([run.refs[i].cell for i in members])
    first = cells.min(axis=0)
    rows, columns = (cells.max(axis=0) - first + 1) * (height, width)
    there = np.zeros((rows, columns), bool)
    truth, found, judged = (np.zeros((rows, columns), bool) for _ in range(3))
    rgb = np.zeros((rows, columns, 3), np.uint8)
    dem = None if look.dem is None else np.zeros((rows, columns), np.float32)
    for i, cell in zip(members, cells, strict=True):
        y, x = (cell - first) * (height, width)
        place = slice(y, y + height), slice(x, x + width)
        image = np.asarray(run.images[i])
        there[place] = True
        rgb[place] = _bytes((image[..., list(look.rgb)] - look.low) / (look.high - look.low))
        if dem is not None:
            dem[place] = image[..., look.dem]
        truth[place] = run.masks[i] != 0
        if scored[i]:
            judged[place], found[place] = True, run.predicted[i] != 0
    relief = None if dem is None else _relief(dem, there, look, height)
    shown = (first - corner) * (height, width)
    return {
        "x": int(shown[1]),
        "y": int(shown[0]),
        "width": int(columns),
        "height": int(rows),
        "rgb": _webp(rgb, there, look.factor),
        "relief": None if relief is None else _webp(np.repeat(relief[..., None], 3, -1), there, look.factor),
        "errors": _errors(truth, found, judged, look.factor),
        "truth": outline_path(truth),
        "prediction": outline_path(found),
    }


def _relief(dem: np.ndarray, there: np.ndarray, look: _Look, rows: int) -> np.ndarray:
    """Return the hillshade of a piece as uint8 (H, W), some rows at a time to save memory."""
    drawn = np.zeros(dem.shape, np.uint8)
    for top in range(0, len(dem), rows):
        start, stop = max(0, top - 1), min(len(dem), top + rows + 1)
        # Without tiles there is no height, and a step down to 0 would be a cliff.
        heights = fill_nearest(dem[start:stop], there[start:stop])
        shade = _bytes(hillshade(heights, look.steepness))
        drawn[top : top + rows] = shade[top - start : top - start + rows]
    return drawn


def _bytes(values: np.ndarray) -> np.ndarray:
    return (np.clip(values, 0, 1) * 255).round().astype(np.uint8)


def _webp(colours: np.ndarray, there: np.ndarray, factor: int) -> str:
    """Encode colours, uint8 (H, W, 3), as WebP that is transparent where there is no tile; return a data URL."""
    picture = Image.fromarray(np.dstack([colours, np.where(there, 255, 0).astype(np.uint8)]))
    return _url(picture.reduce(factor) if factor > 1 else picture, "webp", quality=_QUALITY)


def _errors(truth: np.ndarray, found: np.ndarray, judged: np.ndarray, factor: int) -> str:
    """Encode true positives, false positives and false negatives as a PNG of four colours; return a data URL."""
    index = np.select([truth & found, ~truth & found, truth & ~found & judged], [1, 2, 3]).astype(np.uint8)
    picture = Image.fromarray(index[factor // 2 :: factor, factor // 2 :: factor])
    picture.putpalette([0, 0, 0, *(_bytes(np.array([to_rgb(c) for c in ERROR_COLOURS.values()])).ravel().tolist())])
    return _url(picture, "png", transparency=0, optimize=True)


def _url(picture: Image.Image, form: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode()}"
