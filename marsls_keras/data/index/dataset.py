"""Index of a data folder: its tiles, the mask of each image, and each tile's raster and grid cell."""

from __future__ import annotations

import filecmp
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from marsls_keras.data.formats.tile import FORMATS
from marsls_keras.data.index.folder_layouts import detect_layout, index_folder
from marsls_keras.data.index.tile_ref import Problem, TileRef, raster_keys
from marsls_keras.datasets import RELEASES, grid_key, layouts, releases_of
from marsls_keras.datasets.layout import list_files
from marsls_keras.errors import InputError, listing
from marsls_keras.files import no_folder


def _help() -> str:
    """Return the part of error messages that names the expected folders and how to get data."""
    first, *others = layouts()
    more = ", ".join(f"{RELEASES[releases_of(layout)[0]].title} has {layout.example}" for layout in others)
    origins = "".join(f"\n{layout.origin}" for layout in layouts() if layout.origin)
    return f"\nExpected folders: {first.example}.\n{more}.{origins}\nTo try without data: marsls synth data"


def image_files(folder: str | Path) -> list[Path]:
    """Return the image files of a plain folder, or of its sub-folder `images`, `image` or `img`.

    All are of one format: TIFF if there is any, else HDF5, else PNG.

    Raises:
        InputError: If the folder is missing or empty, or two images would have the same output name (x.tif and x.tiff,
            or a.tif and A.tif).

    Example:
        >>> len(image_files("data/test"))  # doctest: +SKIP
        133
    """
    folder = Path(folder)
    folder = next((folder / name for name in ("images", "image", "img") if (folder / name).is_dir()), folder)
    if not folder.is_dir():
        raise InputError(f"{no_folder(folder)} Give the folder that holds the image tiles.")
    formats = [
        tuple(ending for ending, other in FORMATS.items() if other is form) for form in dict.fromkeys(FORMATS.values())
    ]
    files = next((files for endings in formats if (files := list_files(folder, endings))), [])
    if not files:
        raise InputError(f"{folder} holds no .tif, .h5 or .png file.")
    stems = Counter(file.stem.lower() for file in files)
    clashing = [file.name for file in files if stems[file.stem.lower()] > 1]
    if clashing:
        raise InputError(
            f"Names in {folder} clash: predictions are named after the image, "
            f"so each needs a name of its own.{listing(clashing)}"
        )
    return files


@dataclass(frozen=True)
class Dataset:
    """A folder of tiles in the layout of one of the datasets (`marsls_keras.datasets`, one file each).

    Example:
        >>> dataset = Dataset.open("data")  # doctest: +SKIP
        >>> len(dataset.split("train", "val"))  # doctest: +SKIP
        531

    Attributes:
        root: The folder.
        tiles: All tiles, ordered by split and name.
        problems: What is wrong with the folder's structure.
    """

    root: Path
    tiles: tuple[TileRef, ...]
    problems: tuple[Problem, ...] = ()

    @classmethod
    def open(cls, root: str | Path, strict: bool = True, release: str = "auto", conflicts: str = "error") -> Dataset:
        """Index a data folder; pixels are read only of tiles that share a grid cell.

        Args:
            root: Folder that holds the dataset.
            strict: Raise an error if there are problems; otherwise only list them in `problems`.
            release: Release of the data, which determines the folder layout; "auto" detects the layout by folder names.
            conflicts: Treatment of copies of a tile whose masks differ (data.conflicts): "error", "union" or "ignore".

        Raises:
            InputError: If the folder is missing or holds no split; with `strict`, also if its structure has any
                problem. All problems are listed.
        """
        root = Path(root)
        if not root.is_dir():
            raise InputError(
                f"{no_folder(root, 'data folder').removesuffix('.')} (set it with --data or MARSLS_DATA).{_help()}"
            )
        layout = detect_layout(root) if release == "auto" else RELEASES[release].layout
        tiles, problems = index_folder(root, layout, conflicts) if layout else ([], [])
        if not tiles and not problems:
            raise InputError(f"{root} holds none of the folders {(layout or layouts()[0]).folders}.{_help()}")
        if strict and problems:
            raise InputError(f"{root} has {len(problems)} problem(s):{listing([p.message for p in problems])}")
        return cls(root, tuple(tiles), tuple(problems))

    @classmethod
    def from_images(cls, folder: str | Path) -> Dataset:
        """Index a plain folder of image tiles, without masks, as the split "images".

        Raises:
            InputError: If the folder is missing or empty, or output names would be equal.
        """
        files = image_files(folder)
        keys = raster_keys(f.stem for f in files)
        rasters = {f: f"images/{key}" if (key := keys.get(f.stem)) else "images" for f in files}
        return cls(
            files[0].parent,
            tuple(TileRef(f"images/{f.stem}", f, None, "images", rasters[f], grid_key(f.stem)) for f in files),
        )

    def located_in(self, other: Dataset) -> Dataset:
        """Match this dataset's rasters with those of another dataset, and append the other's tiles of these rasters.

        Equal names and cells do not prove a match, since grids of different rasters overlap. Two rasters match if they
        have at least one grid cell in common and the images in all common cells are identical byte for byte. Tiles in
        common cells are not repeated. If no raster matches, this dataset is returned unchanged.
        """
        tiles: list[TileRef] = list(self.tiles)
        around: list[TileRef] = []
        left = list(dict.fromkeys(tile.raster for tile in other.tiles))
        for name in dict.fromkeys(tile.raster for tile in self.tiles):
            own = {tile.cell: tile for tile in self.tiles if tile.raster == name and tile.cell is not None}
            for raster in left:
                there = {tile.cell: tile for tile in other.tiles if tile.raster == raster and tile.cell is not None}
                both = own.keys() & there.keys()
                if both and all(filecmp.cmp(own[cell].image, there[cell].image, shallow=False) for cell in both):
                    tiles = [replace(tile, raster=raster) if tile.raster == name else tile for tile in tiles]
                    around += [tile for cell, tile in there.items() if cell not in both]
                    left.remove(raster)
                    break
        return replace(self, tiles=(*tiles, *around)) if around or tiles != list(self.tiles) else self

    def split(self, *names: str) -> tuple[TileRef, ...]:
        """Return the tiles of the named splits.

        Raises:
            InputError: If one of these splits has no tile.
        """
        for name in names:
            if not any(tile.split == name for tile in self.tiles):
                there = sorted({tile.split for tile in self.tiles})
                raise InputError(
                    f"{self.root} has no tile in the split {name!r}; "
                    f"it has {', '.join(there) or 'none at all'}.{_help()}"
                )
        return tuple(tile for tile in self.tiles if tile.split in names)
