"""Add derived bands to decoded tiles; terrain bands are computed across tile borders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from marsls_keras.bands.derived import DERIVED
from marsls_keras.bands.directions import Directions
from marsls_keras.bands.names import expand_bands
from marsls_keras.data.decoded.disk_cache import DiskImages, Images, TileWriter, cached
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.derived.colours import COLOURS
from marsls_keras.data.derived.terrain import terrain_bands
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.datasets import RELEASES
from marsls_keras.progress import tracked


def derive(tiles: Tiles, bands: Sequence[str]) -> Tiles:
    """Add the derived bands that a list of bands needs, including all components of vectors.

    Terrain bands are computed on the raster that the tiles were cut from, so that tile borders leave no artefacts.
    Beyond a tile's border lie the heights of its neighbours among `tiles`, of any split or fold (only their images are
    used, never their masks); beyond those the terrain is extrapolated by `continued`. Images on disk stay there, and
    the result is written to disk, too.

    Args:
        tiles: The tiles, including all possible neighbours.
        bands: Names of bands, as in the configuration's `data.bands`.

    Raises:
        InputError: If the tiles lack a band that another one is computed from.
        RunError: If images on disk cannot be written.

    Example:
        >>> derive(tiles, ["all", "roughness"]).bands[-1]  # doctest: +SKIP
        'roughness'
    """
    carried = Directions(expand_bands(bands, tiles.bands)).carried
    names = tuple(band for band in carried if band in DERIVED and band not in tiles.bands)
    if not names:
        return tiles
    number, height, width, _ = tiles.images.shape
    # One pixel more, to mirror at a neighbour's last pixel.
    reach = 1 + max((DERIVED[name].reach or 0 for name in names), default=0)
    grid = TileGrid.of(tiles.refs, height, width, max(height, width) + 2 * reach)
    shape = (height, width, len(tiles.bands) + len(names))

    def pile(folder: Path | None) -> Images:
        whole = TileWriter(number, shape, folder)
        for i in tracked(f"Deriving {', '.join(names)}", range(number)):
            image = np.concatenate([tiles.images[i], _derived(tiles, grid, i, names, reach)], -1)
            whole.add(image, tiles.masks[i], tiles.valid[i])
        return whole.arrays()["images"]

    if isinstance(tiles.images, DiskImages):

        def make(folder: Path) -> dict:
            return {"shape": pile(folder).shape}

        # The digests of the pixels cover everything else that the decoded tiles depend on.
        _, arrays = cached(tiles.refs, ("derived", list(names), tiles.bands, list(tiles.hashes)), make)
        images = arrays["images"]
    else:
        images = pile(None)
    return replace(tiles, images=images, derived=(*tiles.derived, *names))


def _derived(tiles: Tiles, grid: TileGrid, tile: int, names: Sequence[str], reach: int) -> np.ndarray:
    """Return the derived bands of one tile, float32 (H, W, len(names))."""
    found: dict[str, np.ndarray] = {}
    own = [name for name in names if name in COLOURS]
    if own:
        image = tiles.images[tile]
        sources = {source for name in own for source in DERIVED[name].sources}
        layers = {source: image[..., tiles.bands.index(source)].astype(np.float64) for source in sources}
        found = {name: COLOURS[name](layers) for name in own}
    terrain = [name for name in names if name not in COLOURS]
    if terrain:
        release, dem = RELEASES[tiles.release], tiles.bands.index("dem")
        top, left = grid.origin(tile)
        box = (top - reach, left - reach, grid.height + 2 * reach, grid.width + 2 * reach)
        heights = grid.read(tiles.images, *box, fill=np.nan)[..., dem].astype(np.float64) * release.relief
        heights = continued(heights)
        inside = slice(reach, reach + grid.height), slice(reach, reach + grid.width)
        found |= {name: band[inside] for name, band in terrain_bands(heights, release.pixel, terrain).items()}
    return np.stack([found[name] for name in names], -1).astype(np.float32)


def continued(heights: np.ndarray) -> np.ndarray:
    """Extrapolate heights (H, W) into unknown pixels (NaN) by point reflection at the nearest known pixel.

    The value is nearest + (nearest - mirrored), so that slopes keep their steepness and planes stay planes. Repeating
    the nearest pixel would flatten the borders and add curvature there. Where the mirrored pixel is unknown as well,
    the nearest is repeated.

    Example:
        >>> continued(np.array([[1.0, 2.0, 3.0, np.nan]]))
        array([[1., 2., 3., 4.]])
    """
    known = np.isfinite(heights)
    if known.all():
        return heights
    # A column is slightly wider than a row, so that the choice between two equally near pixels does not depend on the
    # rest of the array.
    nearest = ndimage.distance_transform_edt(
        ~known, sampling=(1, 1 + 1e-6), return_distances=False, return_indices=True
    )
    height, width = heights.shape
    down, right = 2 * nearest - np.indices(heights.shape)
    near, far = heights[tuple(nearest)], heights[np.clip(down, 0, height - 1), np.clip(right, 0, width - 1)]
    return np.where(known, heights, 2 * near - np.where(np.isfinite(far), far, near))
