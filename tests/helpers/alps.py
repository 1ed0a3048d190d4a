"""A fictional dataset in one file, with its own bands, scale, folders, container and no-data."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from marsls_keras.bands.names import BANDS
from marsls_keras.datasets.layout import Layout, Part
from marsls_keras.datasets.release import Release, SyntheticFile, SyntheticForm, SyntheticTile

_SPLITS = ("train", "val", "test")


def _parts(root: Path) -> list[Part]:
    folders = {split: root / f"alps-{split}" for split in _SPLITS}
    return [Part(split, folder, folder / "x", folder / "y") for split, folder in folders.items() if folder.is_dir()]


def _number(file: Path) -> str | None:
    match = re.fullmatch(r"(?:pixels|truth)-(\d+)", file.stem)
    return match[1] if match else None


def _files(tile: SyntheticTile) -> list[SyntheticFile]:
    canonical = np.stack([tile.image[..., BANDS.index(name)] for name in ("dem", "red", "gray", "thermal")], -1)
    stored = ALPS.from_canonical(canonical)
    stored[:2, :2, 0] = -32768  # no coherence in the corner of each tile
    folder = f"alps-{tile.split}"
    return [
        SyntheticFile(f"{folder}/x/pixels-{tile.index}.h5", np.round(stored).astype(np.int16), {"key": "pixels"}),
        SyntheticFile(f"{folder}/y/truth-{tile.index}.h5", tile.mask, {"key": "truth"}),
    ]


ALPS = Release(
    name="alps",
    title="Alps",
    description="Alps: made up for a test, 16-bit integers in HDF5",
    order=("coherence", "red", "nir", "dem"),
    bands=("dem", "red", "nir", "coherence"),
    family="alps",
    layout=Layout(
        name="alps",
        folders="alps-train, alps-val, alps-test",
        example="alps-train/x and alps-train/y",
        parts=_parts,
        images=(".h5",),
        masks=(".h5",),
        keys={"number": _number},
    ),
    synthetic=SyntheticForm(_files, empty=True),
    scale=(1000.0, 10_000.0, 10_000.0, 4000.0),
    offset=(0.0, 100.0, 100.0, 200.0),
    relief=4000.0,
    pixel=10.0,
    limit=32_767,
    no_data={"coherence": -32768.0},
    image_key="pixels",
    mask_key="truth",
)
