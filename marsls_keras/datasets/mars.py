"""Properties that MMLS v1, MMLSv2 and the challenge share: folder layout, grid cells, GeoTIFF tags."""

from __future__ import annotations

import re
from typing import Any

from marsls_keras.bands.names import BANDS
from marsls_keras.datasets.layout import TIFF, Layout, in_splits
from marsls_keras.datasets.release import StoredTile
from marsls_keras.lazy_imports import np

LAYOUT = Layout(
    name="mars",
    folders="train, val, test",
    example=(
        "train/images and train/masks, the same for val, and test/images (or train_partition/… as MMLS v1 has them)"
    ),
    parts=in_splits(("images",), ("masks",)),
    images=TIFF,
    masks=TIFF,
    grid=True,
    origin=(
        "To get MMLSv2, follow https://github.com/MAIN-Lab/MMLS_v2; "
        "challenge entrants download the tiles from the Mars-LS page on CodaBench."
    ),
)
"""Folder layout of the Mars releases.

Images are `<split>/images/*.tif` with seven bands, masks `<split>/masks/*.tif` with {0, 1} or {0, 255}. The splits are
train, val and test, or train_partition, validation_partition and test_partition. An image and its mask share their
stem, or else their grid cell. A split without a folder `masks` is unlabelled. A prefix, as in
siteA_col00001_row00002.tif, distinguishes several rasters."""

CELL = re.compile(r"col(?P<col>\d+)_row(?P<row>\d+)$")
"""Pattern of the grid cell in file names of MMLSv2 and the challenge."""

SLOPE_DEGREES = 62.8026087
"""Slope in degrees = canonical slope of MMLSv2 × SLOPE_DEGREES."""

TILE_METRES = 29_696.0
"""Side of a tile in metres: 128 pixels of 232 m. Synthetic tiles of fewer pixels show the same area, coarser."""

ANOTHER = "The file is damaged, marks no-data in an unknown way, or is of another release: say which with --release."
"""End of error messages about values that fit no Mars release."""

_CANONICAL = 1.5
_ORIGIN = (-4_500_000.0, -200_000.0)  # map x, y of the corner of tile (0, 0)
# GeoTIFF keys: the header, then key, location, count and value of each.
_GEO_KEYS = (
    *(1, 1, 0, 20, 1024, 0, 1, 1, 1025, 0, 1, 1, 1026, 34737, 29, 0),
    *(2048, 0, 1, 32767, 2049, 34737, 125, 29, 2050, 0, 1, 32767, 2054, 0, 1, 9102),
    *(2056, 0, 1, 32767, 2057, 34736, 1, 5, 2058, 34736, 1, 6, 2061, 34736, 1, 7),
    *(3072, 0, 1, 32767, 3074, 0, 1, 32767, 3075, 0, 1, 17, 3076, 0, 1, 9001),
    *(3078, 34736, 1, 2, 3082, 34736, 1, 3, 3083, 34736, 1, 4, 3088, 34736, 1, 1),
    *(3089, 34736, 1, 0),
)
_GEO_NUMBERS = (0.0, 0.0, 0.0, 0.0, 0.0, 3396190.0, 3396190.0, 0.0)
_GEO_NAMES = (
    "Mars_Equidistant_Cylindrical|GCS Name = GCS_Mars_2000_Sphere|Datum = Mars_2000_(Sphere)|"
    "Ellipsoid = Mars_2000_Sphere_IAU_IAG|Primem = Reference_Meridian||"
)


def is_canonical(tile: StoredTile) -> bool:
    """Return whether all values of a tile are in the range of canonical ones: [0, 1], with a margin for resampling.

    Raw heights, temperatures and colours are far outside in every tile.

    Example:
        >>> from pathlib import Path
        >>> is_canonical(StoredTile(Path("a.tif"), np.full((1, 1, 7), 127, np.float32), np.dtype(np.float32)))
        False
    """
    low, high = tile.span
    return max(-low, high) <= _CANONICAL


def is_patch(tile: StoredTile) -> bool:
    """Return whether a file name is one of MMLS v1: Image_patch_<row>_<col> or ImageT_patch_<row>_<col>.

    Example:
        >>> from pathlib import Path
        >>> is_patch(StoredTile(Path("Image_patch_3_4.tif"), np.zeros((1, 1, 7), np.float32), np.dtype(np.float32)))
        True
    """
    return re.fullmatch(r"ImageT?_patch_\d+_\d+", tile.path.stem) is not None


def border(index: int, size: int) -> tuple[slice, slice]:
    """Return the slices of a synthetic tile without slope, as at the edge of the raster.

    They are 1 to 3 rows or columns at one side of every eighth tile.

    Args:
        index: Number of the tile within its split.
        size: Pixels a side.

    Example:
        >>> border(1, 32)
        (slice(31, None, None), slice(None, None, None))
    """
    turn, rest = divmod(index, 8)
    thick = 1 + turn % 3 if rest == 1 else 0
    side = (np.s_[size - thick :, :], np.s_[:, :thick], np.s_[:thick, :], np.s_[:, size - thick :])
    return side[turn % 4]


def without_border(image: np.ndarray, index: int) -> np.ndarray:
    """Return a copy of a synthetic tile, float32 (H, W, 7), whose slope is 0 along its `border`.

    Example:
        >>> without_border(np.ones((32, 32, 7), np.float32), 1)[31, 0, BANDS.index("slope")]
        np.float32(0.0)
    """
    image = image.copy()
    image[border(index, image.shape[0])][..., BANDS.index("slope")] = 0
    return image


def geo_tags(cell: tuple[int, int], size: int) -> list[tuple[Any, ...]]:
    """Return the GeoTIFF tags of a grid cell, in Mars equidistant cylindrical projection, for `tifffile.imwrite`.

    Args:
        cell: (row, column) on the map.
        size: Pixels a side of the tile.

    Example:
        >>> geo_tags((0, 0), 128)[0]
        (33550, 'd', 3, (232.0, 232.0, 0.0), True)
    """
    row, col = cell
    pixel, x, y = TILE_METRES / size, _ORIGIN[0] + col * TILE_METRES, _ORIGIN[1] - row * TILE_METRES
    return [
        (33550, "d", 3, (pixel, pixel, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, x, y, 0.0), True),
        (34735, "H", len(_GEO_KEYS), _GEO_KEYS, True),
        (34736, "d", len(_GEO_NUMBERS), _GEO_NUMBERS, True),
        (34737, "s", 0, _GEO_NAMES, True),
    ]
