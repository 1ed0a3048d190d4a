"""References to tiles, problems of a data folder, and raster names derived from file names."""

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
"""Words in file names that describe the kind of file, not the raster it was cut from."""


@dataclass(frozen=True)
class Problem:
    """Problem found in a data folder.

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
    """Files of a tile and its position in a raster.

    Attributes:
        id: Unique name within the dataset, "<split>/<file stem>"; in Bijie "train/<landslide or non-landslide>/<file
            stem>".
        image: Image file.
        mask: Mask file, None in an unlabelled split and where `landslide` is False.
        split: "train", "val", "test", or "images" for a plain folder.
        raster: Name of the raster the tile was cut from; grid cells are comparable only within one raster.
        cell: (row, column) in the raster's grid; None if the file name does not contain it.
        landslide: Whether the tile's folder is for tiles with landslide; None if only the mask says so.
        release: Name of the release if the folder's layout determines it, "auto" if the file has to.
        more_masks: Masks of copies of the tile that were left out; their landslides are added to the mask's
            (data.conflicts union).

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
        """Whether the tile has labels: a mask, or a folder that says it holds no landslide."""
        return self.mask is not None or self.landslide is False


def raster_key(stem: str) -> str:
    """Return the raster's name in a file stem: what precedes the grid cell, without words such as "image".

    Example:
        >>> raster_key("siteA_col00001_row00002"), raster_key("ImageT_patch_3_4")
        ('siteA', '')
    """
    match = cell_match(stem)
    words = [] if match is None else re.split(r"[\W_]+", stem[: match.start()])
    return "_".join(word for word in words if word and word.lower() not in _NO_NAMES)


def raster_keys(stems: Iterable[str]) -> dict[str, str]:
    """Return the raster's name of each file, by stem; "" for all if the prefixes do not name rasters.

    Different prefixes name rasters if one occurs several times, or if files with different prefixes have the same cell.

    Example:
        >>> raster_keys(["siteA_col1_row2", "siteA_col1_row3", "siteB_col1_row2"])
        {'siteA_col1_row2': 'siteA', 'siteA_col1_row3': 'siteA', 'siteB_col1_row2': 'siteB'}
    """
    keys = {stem: raster_key(stem) for stem in stems if grid_key(stem) is not None}
    names, cells = set(keys.values()), {grid_key(stem) for stem in keys}
    tell = len(names) > 1 and (len(names) < len(keys) or len(cells) < len(keys))
    return {stem: key if tell else "" for stem, key in keys.items()}
