"""Where a tile is and what may be wrong with it: what the index, the layouts and the readers of a data folder share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_GRID = (re.compile(r"patch_(?P<row>\d+)_(?P<col>\d+)$"), re.compile(r"col(?P<col>\d+)_row(?P<row>\d+)$"))


@dataclass(frozen=True)
class Problem:
    """Something wrong with a data folder.

    Attributes:
        kind: Short name, such as "missing mask".
        message: The file and what is wrong with it.
        severity: "error" stops training, "warning" is only reported.
    """

    kind: str
    message: str
    severity: str = "error"


@dataclass(frozen=True)
class TileRef:
    """Where a tile is, on disk and on its planet.

    Attributes:
        id: Unique name within the dataset, "<split>/<file stem>"; of Bijie "train/<landslide or non-landslide>/<file stem>".
        image: Image file.
        mask: Mask file, None in an unlabelled split and where `landslide` is False.
        split: "train", "val", "test", or "images" for a plain folder.
        raster: Name of the picture the tile was cut from; grid cells are comparable within one raster only.
        cell: (row, column) in the raster's grid, None if the name does not tell.
        landslide: Whether the folder that the tile lies in says that it holds landslide; None if only the mask tells.
        release: Name of the release if the folder's layout tells it, "auto" if the file has to.
    """

    id: str
    image: Path
    mask: Path | None
    split: str
    raster: str
    cell: tuple[int, int] | None
    landslide: bool | None = None
    release: str = "auto"

    @property
    def labelled(self) -> bool:
        """Whether it is known where the tile holds landslide: by a mask, or because it holds none."""
        return self.mask is not None or self.landslide is False


def grid_key(stem: str) -> tuple[int, int] | None:
    """Return (row, column) from a file's stem: Image_patch_<row>_<col> or col<col>_row<row>; None for other names."""
    for pattern in _GRID:
        if match := pattern.search(stem):
            return int(match["row"]), int(match["col"])
    return None


def list_files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Return the files of a folder that have one of these endings, sorted, hidden files left out; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in endings and not p.name.startswith("."))
