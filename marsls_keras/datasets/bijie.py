"""Bijie: 770 RGB pictures of TripleSat with and 2,003 without landslide, PNG of different sizes.

Ji et al., "Landslide detection from an open satellite imagery and digital elevation model dataset using attention
boosted convolutional neural networks", Landslides 17, 2020. `landslide/image/*.png` have masks of the same names in
`landslide/mask`; `non-landslide/image/*.png` have no masks, which would be empty. The folders `dem` are not read.
There are no splits: all are training tiles (data.cv holdout divides them). The pictures differ in size; data.resize
makes them equal. A tile has no known neighbours.
"""

from __future__ import annotations

from pathlib import Path

from marsls_keras.bands.names import BANDS, RGB
from marsls_keras.datasets.layout import Layout, Part
from marsls_keras.datasets.release import Release, SyntheticFile, SyntheticForm, SyntheticTile
from marsls_keras.lazy_imports import np

_LANDSLIDE = {"landslide": True, "non-landslide": False}
_FIRST = {"train": 1, "val": 10_001, "test": 20_001}  # all splits are in one folder, so their numbers must differ


def _parts(root: Path) -> list[Part]:
    folders = {root / name: holds for name, holds in _LANDSLIDE.items() if (root / name / "image").is_dir()}
    return [Part("train", folder, folder / "image", folder / "mask", holds) for folder, holds in folders.items()]


def _files(tile: SyntheticTile) -> list[SyntheticFile]:
    landslide = bool(tile.mask.any())
    folder, prefix = ("landslide", "df") if landslide else ("non-landslide", "no")
    name = f"{prefix}{_FIRST[tile.split] + tile.index:03d}.png"
    eight_bits = np.round(255 * tile.image).astype(np.uint8)
    files = [
        SyntheticFile(f"{folder}/image/{name}", eight_bits[..., [BANDS.index(band) for band in RGB]]),
        SyntheticFile(f"{folder}/dem/{name}", eight_bits[..., BANDS.index("dem")]),
    ]
    return [*files, SyntheticFile(f"{folder}/mask/{name}", tile.mask * np.uint8(255))] if landslide else files


RELEASE = Release(
    name="bijie",
    title="Bijie",
    description="Bijie: RGB of TripleSat, PNG",
    order=RGB,
    bands=RGB,
    family="rgb",
    layout=Layout(
        name="bijie",
        folders="landslide/image, non-landslide/image",
        example="landslide/image, landslide/mask and non-landslide/image",
        parts=_parts,
        images=(".png",),
        masks=(".png",),
    ),
    synthetic=SyntheticForm(_files, empty=True, splits=False),
    scale=(255.0,) * 3,  # eight bits are scaled to [0, 1]
    limit=255,
    eight_bits=True,
)
