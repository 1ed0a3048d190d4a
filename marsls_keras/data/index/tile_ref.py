"""Where a tile is and what may be wrong with it: what the index, the layouts and the readers of a data folder share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from marsls_keras.datasets import grid_key
from marsls_keras.datasets.registry import cell_match

_NO_NAMES = frozenset(
    word for name in ("image", "imaget", "img", "mask", "maskt", "label", "tile") for word in (name, f"{name}s")
) | {
    "train",
    "training",
    "val",
    "valid",
    "validation",
    "test",
    "partition",
}
"""Words that say what a file is, not which picture it was cut from."""


@dataclass(frozen=True)
class Problem:
    """Something wrong with a data folder.

    Attributes:
        kind: Short name, such as "missing mask".
        message: The file and what is wrong with it.
        severity: "error" stops training, "warning" is only reported.

    Example:
        >>> Problem("missing mask", "a.tif has no mask of the same name").severity
        'error'
    """

    kind: str
    message: str
    severity: str = "error"


@dataclass(frozen=True)
class TileRef:
    """Where a tile is, on disk and on its planet.

    Attributes:
        id: Unique name within the dataset, "<split>/<file stem>"; of Bijie "train/<landslide or non-landslide>/<file
            stem>".
        image: Image file.
        mask: Mask file, None in an unlabelled split and where `landslide` is False.
        split: "train", "val", "test", or "images" for a plain folder.
        raster: Name of the picture the tile was cut from; grid cells are comparable within one raster only.
        cell: (row, column) in the raster's grid, None if the name does not tell.
        landslide: Whether the folder that the tile lies in says that it holds landslide; None if only the mask tells.
        release: Name of the release if the folder's layout tells it, "auto" if the file has to.
        more_masks: Masks of copies of the tile that are left out for it, whose landslides it has, too (data.conflicts
            union).

    Example:
        >>> TileRef("train/no001", Path("no001.png"), None, "train", "train/no001", None, landslide=False).labelled
        True
    """

    id: str
    image: Path
    mask: Path | None
    split: str
    raster: str
    cell: tuple[int, int] | None
    landslide: bool | None = None
    release: str = "auto"
    more_masks: tuple[Path, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether it is known where the tile holds landslide: by a mask, or because it holds none."""
        return self.mask is not None or self.landslide is False


def raster_key(stem: str) -> str:
    """Return the name of the raster that a file was cut from: what precedes its grid cell, without words such as image.

    Example:
        >>> raster_key("siteA_col00001_row00002"), raster_key("ImageT_patch_3_4")
        ('siteA', '')
    """
    match = cell_match(stem)
    words = [] if match is None else re.split(r"[\W_]+", stem[: match.start()])
    return "_".join(word for word in words if word and word.lower() not in _NO_NAMES)


def raster_keys(stems: Iterable[str]) -> dict[str, str]:
    """Return the name of each file's raster by stem; "" for all if what precedes the grid cells only numbers tiles.

    They tell pictures if one is there several times, or if files of different names have the same cell.

    Example:
        >>> raster_keys(["siteA_col1_row2", "siteA_col1_row3", "siteB_col1_row2"])
        {'siteA_col1_row2': 'siteA', 'siteA_col1_row3': 'siteA', 'siteB_col1_row2': 'siteB'}
    """
    keys = {stem: raster_key(stem) for stem in stems if grid_key(stem) is not None}
    names, cells = set(keys.values()), {grid_key(stem) for stem in keys}
    tell = len(names) > 1 and (len(names) < len(keys) or len(cells) < len(keys))
    return {stem: key if tell else "" for stem, key in keys.items()}
