"""MMLS v1, the dataset of the MarsLS-Net paper (Paheding et al., WACV 2024): 306 + 256 tiles.

The documentation says slope, thermal; the files hold thermal, slope, as in Figure 3 of the paper: the sixth band
follows the gradient of the DEM (r = 0.96 over all tiles; in degrees, at the relief of MMLSv2, it is 63.7 times that
band), the fifth does not (r = 0.22). The fifth is 0, no data, along a seam through six tiles, and above 0.87 elsewhere.
"""

from __future__ import annotations

import re

from marsls_keras.bands.names import BANDS
from marsls_keras.datasets.mars import ANOTHER, LAYOUT, SLOPE_DEGREES, is_canonical, is_patch
from marsls_keras.datasets.release import Release, StoredTile, SyntheticFile, SyntheticForm, SyntheticTile
from marsls_keras.errors import InputError
from marsls_keras.lazy_imports import np

_SLOPE_DEGREES = 63.7
_THERMAL = (0.857, 0.08)  # offset and scale from canonical thermal to this band: mean 0.895, deviation 0.01
_FOLDERS = {"train": "train_partition", "val": "validation_partition", "test": "test_partition"}
_ORDER = ("red", "green", "blue", "dem", "thermal", "slope", "gray")


def _claims(tile: StoredTile) -> bool:
    low, high = tile.span
    if not is_patch(tile) or max(-low, high) > RELEASE.limit:  # larger values are refused by the challenge's limit
        return False
    if is_canonical(tile):
        return True
    raise InputError(
        f"{tile.path}: values from {low:g} to {high:g}; a tile of mmls_v1, as its name says, has values in [0, 1]. "
        f"{ANOTHER}"
    )


def _files(tile: SyntheticTile) -> list[SyntheticFile]:
    image, (row, col) = tile.image.copy(), tile.cell
    image[..., BANDS.index("slope")] *= SLOPE_DEGREES / _SLOPE_DEGREES
    thermal = image[..., BANDS.index("thermal")]
    thermal[:] = _THERMAL[0] + _THERMAL[1] * thermal
    thermal[_seam(tile.index, image.shape[0])] = 0
    folder, letter = _FOLDERS[tile.split], "T" if tile.split == "test" else ""
    # One page per row of pixels, as in the published files: tifffile's default for an array whose last axis is 7.
    stored, options = RELEASE.from_canonical(image), {"photometric": "minisblack"}
    return [
        SyntheticFile(f"{folder}/images/Image{letter}_patch_{row}_{col}.tif", stored, options),
        SyntheticFile(f"{folder}/masks/Mask{letter}_patch_{row}_{col}.tif", tile.mask.astype(np.float32)),
    ]


def _seam(index: int, size: int) -> np.ndarray:
    """Return where a synthetic tile has no thermal, bool (size, size): a slanting stripe in every eighth tile."""
    row, column = np.indices((size, size))
    left = size // 2 - row / 4
    return (index % 8 == 1) & (left <= column) & (column < left + size / 9)


RELEASE = Release(
    name="mmls_v1",
    title="MMLS v1",
    description="MarsLS-Net's dataset: values in [0, 1], Image_patch_<row>_<col>.tif",
    order=_ORDER,
    family="mmls_v1",
    layout=LAYOUT,
    synthetic=SyntheticForm(_files, own_grid=True),
    no_data={"thermal": 0.0},
    cell=re.compile(r"patch_(?P<row>\d+)_(?P<col>\d+)$"),
    claims=_claims,
    reading=2,  # version 1 swapped thermal and slope, as documented, and read no data of thermal as values
)
