"""Generated tiles in the on-disk form of Landslide4Sense, Bijie and Nepal.

The ground is that of `marsls_keras.data.synthetic.mars`, so that landslides show in its relief and texture; it is only
written as those datasets
are: the same folders, names, types and scales, and tiles without landslide among the others. The colours are not those of Earth.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import tifffile

from marsls_keras.bands.releases import BANDS, RGB, SENTINEL
from marsls_keras.files import atomic

_FOLDERS = {"train": "TrainData", "val": "ValidData", "test": "TestData"}
_MIX = {
    **{band: {band: 1.0} for band in (*RGB, "slope", "dem")},
    **{"coastal": {"blue": 0.9, "gray": 0.1}, "water_vapour": {"thermal": 1.0}, "cirrus": {"thermal": 0.3, "blue": 0.2}},
    **{f"red_edge{i}": {"red": 1 - i / 4, "gray": i / 4} for i in (1, 2, 3)},
    **{"nir": {"gray": 0.8, "red": 0.2}, "swir1": {"thermal": 0.5, "red": 0.5}, "swir2": {"thermal": 0.7, "red": 0.3}},
}
"""What the bands of Landslide4Sense are made of: weights of bands of Mars."""


def _landslide4sense(root: Path, split: str, index: int, image: np.ndarray, mask: np.ndarray) -> None:
    bands = [sum(weight * image[..., BANDS.index(source)] for source, weight in _MIX[band].items()) for band in SENTINEL]
    folder = root / _FOLDERS[split]
    # The published tiles are around 1 in every band.
    _write_h5(folder / "img" / f"image_{index + 1}.h5", "img", 2 * np.stack(bands, -1).astype(np.float64))
    _write_h5(folder / "mask" / f"mask_{index + 1}.h5", "mask", mask)


def _bijie(root: Path, split: str, index: int, image: np.ndarray, mask: np.ndarray) -> None:
    offset = {"train": 0, "val": 10_000, "test": 20_000}[split]  # all in one folder, so all need names of their own
    folder, prefix = (root / "landslide", "df") if mask.any() else (root / "non-landslide", "no")
    name = f"{prefix}{offset + index + 1:03d}.png"
    _write_png(folder / "image" / name, _picture(image))
    _write_png(folder / "dem" / name, np.round(255 * image[..., BANDS.index("dem")]).astype(np.uint8))
    if mask.any():
        _write_png(folder / "mask" / name, mask * np.uint8(255))


def _nepal(root: Path, split: str, index: int, image: np.ndarray, mask: np.ndarray) -> None:
    name = f"{10_001 + index}"
    with atomic(root / split / "images" / f"{name}.tif") as temporary:
        tifffile.imwrite(temporary, _picture(image), photometric="rgb", metadata=None)
    _write_png(root / split / "masks" / f"{name}.png", mask * np.uint8(255))


EARTH: dict[str, Callable[[Path, str, int, np.ndarray, np.ndarray], None]] = {
    "landslide4sense": _landslide4sense,
    "bijie": _bijie,
    "nepal": _nepal,
}
"""Per release, what writes a tile below a folder: its split and number, the image (H, W, 7) of Mars in [0, 1], and the mask {0, 1}."""


def _picture(image: np.ndarray) -> np.ndarray:
    return np.round(255 * image[..., [BANDS.index(band) for band in RGB]]).astype(np.uint8)


def _write_h5(path: Path, key: str, array: np.ndarray) -> None:
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset(key, data=array)


def _write_png(path: Path, array: np.ndarray) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(array)))
