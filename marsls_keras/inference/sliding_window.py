"""Sliding-window prediction across tile borders: overlapping windows of the raster, blended per tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, product

import numpy as np

from marsls_keras.data.decoded.disk_cache import select
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.formats.tile import read_shape
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.errors import InputError
from marsls_keras.inference.member import Member, predict_inputs, predict_views
from marsls_keras.inference.tta import ViewPrediction, viewed_size
from marsls_keras.models import has_detection, require_size
from marsls_keras.progress import tracked
from marsls_keras.view_sets import split_view, views_of


def predict_tiles(member: Member, tiles: Tiles, index: np.ndarray, views: Sequence[str]) -> Iterator[ViewPrediction]:
    """Predict some tiles in each view, and yield the landslide probabilities with the view inverted.

    Views of windows also see the pixels of the other tiles.

    Args:
        member: A trained fold.
        tiles: The tiles to predict and the tiles around them; masks are not used.
        index: Positions of the n tiles to predict, int (n,).
        views: Names of views of single tiles or of windows.

    Yields:
        One prediction of the n tiles per view, float32.

    Raises:
        InputError: If the network cannot take tiles or windows of this size; for views of windows also if the position
            of a tile is unknown, or the normalisation stretches each tile separately.

    Example:
        >>> seen = next(predict_tiles(member, tiles, np.arange(3), ["identity@256/128"]))  # doctest: +SKIP
        >>> seen.probability.shape  # doctest: +SKIP
        (3, 128, 128)
    """
    images = select(tiles.images, index)
    for (window, stride), group in groupby(views, lambda view: split_view(view)[1:]):
        names = [split_view(view)[0] for view in group]
        alone = predict_views(member, images, names, tiles.bands)  # lazily
        if window is None or stride is None:
            yield from alone
            continue
        config = member.run.config.model
        # Image probabilities come from the tile alone: in a window the landslide may lie outside of the tile.
        landslide = (
            [seen.landslide for seen in alone] if has_detection(config.name, config.options) else [None] * len(names)
        )
        for probability, known in zip(_windows(member, tiles, index, names, window, stride), landslide, strict=True):
            yield ViewPrediction(probability, known)


def require_whole_picture(percentiles: tuple[float, float] | None, view: str) -> None:
    """Check that tiles are not stretched separately by percentiles, which would put steps at tile borders in windows.

    Args:
        percentiles: As `data.normalization.percentiles`.
        view: Name of a view of windows, for the error message.

    Raises:
        InputError: If `percentiles` are not None.

    Example:
        >>> require_whole_picture(None, "identity@256")
    """
    if percentiles is not None:
        raise InputError(
            f"View {view} looks across the borders of tiles, but data.normalization.percentiles stretch each tile by "
            "itself, so it would see a step at every border. Choose views of single tiles, or train with "
            "--set data.normalization.percentiles=null."
        )


def stitchable(refs: Sequence[TileRef]) -> bool:
    """Return whether the positions of all tiles are known: each has its own cell in the grid of its raster.

    Example:
        >>> stitchable([])
        True
    """
    places = {(ref.raster, ref.cell) for ref in refs if ref.cell is not None}
    return len(places) == len(refs)


def cells_seen(view_set: str, tile: TileRef, release: str, resize: int | None) -> int:
    """Return how many grid cells beyond a tile the windows of a set of views may see, 0 for views of single tiles.

    Args:
        view_set: Name of the set.
        tile: One of the tiles, whose header gives their size.
        release: Release of the tiles, or "auto" for that of `tile`.
        resize: Side in pixels to which tiles are resized, as `data.resize`; None keeps their size.

    Raises:
        InputError: If there is no such set, or the header cannot be read.

    Example:
        >>> cells_seen("d4", dataset.tiles[0], "auto", None)  # doctest: +SKIP
        0
        >>> cells_seen("d4@256", dataset.tiles[0], "auto", None)  # tiles of 128 pixels  # doctest: +SKIP
        2
    """
    window = max(split_view(view)[1] or 1 for view in views_of(view_set))
    if window == 1:
        return 0
    side = resize or min(read_shape(tile.image, tile.release if release == "auto" else release)[:2])
    return -(-(window - 1) // side)


def corners(mosaic: TileGrid, index: np.ndarray, window: int, stride: int) -> np.ndarray:
    """Return the top left corners of all windows that see a pixel of some tiles, in reading order.

    Windows lie on a lattice with a spacing of `stride` pixels, so that every pixel is seen by the same number of
    windows. If the stride divides the height and width of a tile, one window is centred on each tile, and the windows
    of a tile do not depend on which other tiles there are.

    Args:
        mosaic: Grid of the tiles.
        index: Positions of the tiles to predict.
        window: Side of a window in pixels.
        stride: Spacing of windows in pixels.

    Returns:
        (top, left) of each window in pixels, int (K, 2).

    Example:
        >>> grid = TileGrid.apart(1, 64, 64)
        >>> corners(grid, np.array([0]), window=64, stride=32).shape
        (9, 2)
    """
    shifts = (window - mosaic.height) // 2, (window - mosaic.width) // 2
    sides = mosaic.height, mosaic.width
    found: set[tuple[int, ...]] = set()
    for origin in mosaic.origins[index].tolist():
        # Lattice indices of the windows that overlap the tile.
        spans = [
            range((start + shift - window) // stride + 1, (start + shift + side - 1) // stride + 1)
            for start, shift, side in zip(origin, shifts, sides, strict=True)
        ]
        found |= set(product(*spans))
    return np.array(sorted(found)) * stride - shifts


def blend(window: int) -> np.ndarray:
    """Return the blending weight of each pixel of a window, a raised cosine along both axes, above 0 everywhere.

    Pixels near the edge of a window have the least context, and get the least weight.

    Args:
        window: Side of the window in pixels.

    Returns:
        float32 (window, window).

    Example:
        >>> blend(4)[1].round(2).astype(str).tolist()
        ['0.12', '0.73', '0.73', '0.12']
    """
    line = np.sin(np.pi * (np.arange(window) + 0.5) / window) ** 2
    return np.outer(line, line).astype(np.float32)


def _windows(
    member: Member, tiles: Tiles, index: np.ndarray, views: Sequence[str], window: int, stride: int
) -> Iterator[np.ndarray]:
    """Predict windows in each view, and yield their blended probability on the tiles at `index`, float32 (n, H, W).

    Where a window sees no tile, its normalised bands are 0, as in training on windows. The raster is never assembled:
    windows are read from the array of tiles.
    """
    config = member.run.config
    for view in views:
        require_size(config.model.name, config.model.options, *viewed_size(view, window, window))
    if not stitchable(tiles.refs):
        raise InputError(
            "The names of these tiles do not tell where each of them lies, "
            "so there are no windows across their borders."
        )
    require_whole_picture(member.normalizer.percentiles, f"{views[0]}@{window}")
    _, height, width, _ = tiles.images.shape
    mosaic = TileGrid.of(tiles.refs, height, width, window)
    places, weight = corners(mosaic, index, window, stride), blend(window)
    row = np.full(len(tiles), -1)
    row[index] = np.arange(len(index))
    inputs = member.normalizer.inputs(tiles.images, tiles.bands)
    batch = max(1, min(config.inference.batch_size * height * width // window**2, len(places)))
    for number, view in enumerate(views, 1):
        total, weights = np.zeros((2, len(index), height, width), np.float32)
        title = f"Predicting windows with run {member.run.name}, fold {member.fold}, view {number} of {len(views)}"
        for first in tracked(title, range(0, len(places), batch)):
            chosen = places[first : first + batch]
            seen = np.stack([mosaic.read(inputs, top, left, window, window) for top, left in chosen.tolist()])
            for (top, left), probability in zip(
                chosen.tolist(), predict_inputs(member, seen, view, batch).probability, strict=True
            ):
                for tile in mosaic.tiles_in(top, left, window, window):
                    if row[tile] < 0:
                        continue
                    # Slices of the overlap, in pixels of the window and of the tile.
                    down, right = (mosaic.origins[tile] - (top, left)).tolist()
                    y, x = slice(max(down, 0), down + height), slice(max(right, 0), right + width)
                    here = weight[y, x]
                    there = (
                        row[tile],
                        slice(max(-down, 0), max(-down, 0) + here.shape[0]),
                        slice(max(-right, 0), max(-right, 0) + here.shape[1]),
                    )
                    total[there] += probability[y, x] * here
                    weights[there] += here
        yield total / weights
