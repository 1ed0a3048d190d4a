"""Nepal: 230 / 35 / 10 pictures of Landsat 8 for training, validation and test, TIFF or PNG.

Bragagnolo et al., "Convolutional neural networks applied to semantic segmentation of landslide scars", Catena 201,
2021; Zenodo 3675407. `<split>/images/*.tif` are RGB in eight bits, `<split>/masks/*.png` of {0, 255} have the same
stem; the images may also be PNG, and the folders may be named image or img, and mask, labels or label. A tile has no
known neighbours: it is a raster, and a block, of its own.
"""

from __future__ import annotations

from pathlib import Path

from marsls_keras.bands.names import BANDS, RGB
from marsls_keras.datasets.layout import TIFF, Layout, Part, in_splits, list_files
from marsls_keras.datasets.release import Release, SyntheticFile, SyntheticForm, SyntheticTile
from marsls_keras.lazy_imports import np


def _found(parts: list[Part]) -> bool:
    """Return whether the images or masks of a split are all PNG; otherwise the folders are of the Mars layout."""
    return any(_only_png(part.masks) or _only_png(part.images) for part in parts)


def _only_png(folder: Path) -> bool:
    return bool(list_files(folder, (".png",))) and not list_files(folder, TIFF)


def _files(tile: SyntheticTile) -> list[SyntheticFile]:
    name = f"{10_001 + tile.index}"
    picture = np.round(255 * tile.image[..., [BANDS.index(band) for band in RGB]]).astype(np.uint8)
    return [
        SyntheticFile(f"{tile.split}/images/{name}.tif", picture, {"photometric": "rgb", "metadata": None}),
        SyntheticFile(f"{tile.split}/masks/{name}.png", tile.mask * np.uint8(255)),
    ]


RELEASE = Release(
    name="nepal",
    title="Nepal",
    description="Nepal: RGB of Landsat 8, TIFF",
    order=RGB,
    bands=RGB,
    family="rgb",
    layout=Layout(
        name="nepal",
        folders="train, val, test",
        example="train/images and train/masks",
        parts=in_splits(("images", "image", "img"), ("masks", "mask", "labels", "label")),
        images=(*TIFF, ".png"),
        masks=(".png", *TIFF),
        found=_found,
    ),
    synthetic=SyntheticForm(_files, empty=True),
    scale=(255.0,) * 3,  # eight bits are scaled to [0, 1]
    limit=255,
    eight_bits=True,
)
