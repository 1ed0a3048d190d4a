"""Landslide4Sense: 14 bands of Sentinel-2 and ALOS PALSAR, 3,799 / 245 / 800 tiles of 128 x 128 pixels in HDF5.

Ghorbanzadeh et al., "Landslide4Sense: Reference Benchmark Data and Deep Learning Models for Landslide Detection", IEEE
TGRS 60, 2022. `TrainData/img/image_<n>.h5` holds the dataset `img`, float64 128 x 128 x 14 (Sentinel-2 B1 to B12, then
slope and height of ALOS PALSAR), `TrainData/mask/mask_<n>.h5` holds `mask`, uint8 128 x 128 of {0, 1}; the same in
ValidData and TestData, whose masks came later and may be absent. Copies with images/train, annotations/train
(validation, test) are read as well. RMAU-Net reports 3,844 tiles in all and 3,044 without the test tiles, which is
1,000 less than published: its 80:20 split is of the training and validation tiles together.

The scale of the published heights is unknown: 1 km is assumed, which affects how steep a hillshade looks, but not the
aspect of a slope. A tile has no known neighbours: it is a raster, and a block, of its own.
"""

from __future__ import annotations

import re
from pathlib import Path

from marsls_keras.bands.names import BANDS, RGB
from marsls_keras.datasets.layout import Layout, Part
from marsls_keras.datasets.release import Release, SyntheticFile, SyntheticForm, SyntheticTile
from marsls_keras.lazy_imports import np

SENTINEL = (
    *(
        "coastal",
        "blue",
        "green",
        "red",
        "red_edge1",
        "red_edge2",
        "red_edge3",
        "nir",
        "water_vapour",
        "cirrus",
        "swir1",
        "swir2",
    ),
    *("slope", "dem"),
)
"""The bands in file order: B1 to B12 of Sentinel-2 (RMAU-Net, Table I), slope (B13) and height (B14)."""

_FOLDERS = {"train": ("TrainData", "train"), "val": ("ValidData", "validation"), "test": ("TestData", "test")}

_MIX = {
    **{band: {band: 1.0} for band in (*RGB, "slope", "dem")},
    **{
        "coastal": {"blue": 0.9, "gray": 0.1},
        "water_vapour": {"thermal": 1.0},
        "cirrus": {"thermal": 0.3, "blue": 0.2},
    },
    **{f"red_edge{i}": {"red": 1 - i / 4, "gray": i / 4} for i in (1, 2, 3)},
    **{"nir": {"gray": 0.8, "red": 0.2}, "swir1": {"thermal": 0.5, "red": 0.5}, "swir2": {"thermal": 0.7, "red": 0.3}},
}
"""Bands of synthetic tiles as weighted sums of bands of Mars."""


def _parts(root: Path) -> list[Part]:
    """Return the folders of the challenge (TrainData/img, /mask) or of its copies (images/train, annotations/train)."""
    parts = []
    for split, (old, new) in _FOLDERS.items():
        if (root / old).is_dir():
            parts.append(Part(split, root / old, root / old / "img", root / old / "mask"))
        if (root / "images" / new).is_dir():
            parts.append(Part(split, root / "images" / new, root / "images" / new, root / "annotations" / new))
    return parts


def _number(file: Path) -> int | None:
    match = re.fullmatch(r"(?:image|mask)_(\d+)", file.stem)
    return int(match[1]) if match else None


def _files(tile: SyntheticTile) -> list[SyntheticFile]:
    bands = [
        sum(weight * tile.image[..., BANDS.index(source)] for source, weight in _MIX[band].items()) for band in SENTINEL
    ]
    folder, number = _FOLDERS[tile.split][0], tile.index + 1
    # Values of published tiles are about 1 in every band.
    return [
        SyntheticFile(f"{folder}/img/image_{number}.h5", 2 * np.stack(bands, -1).astype(np.float64), {"key": "img"}),
        SyntheticFile(f"{folder}/mask/mask_{number}.h5", tile.mask, {"key": "mask"}),
    ]


RELEASE = Release(
    name="landslide4sense",
    title="Landslide4Sense",
    description="Landslide4Sense: 14 bands of Sentinel-2 and ALOS PALSAR, image_<n>.h5",
    order=SENTINEL,
    bands=SENTINEL,
    family="landslide4sense",
    layout=Layout(
        name="landslide4sense",
        folders="TrainData, ValidData, TestData",
        example="TrainData/img and TrainData/mask",
        parts=_parts,
        images=(".h5",),
        masks=(".h5",),
        keys={"number": _number},
    ),
    synthetic=SyntheticForm(_files, empty=True),
    relief=1000.0,
    pixel=10.0,
    limit=1e5,  # published values are about 1; raw Sentinel-2 counts and heights in metres still pass
    image_key="img",
    mask_key="mask",
)
