"""The index of a data folder: which tiles there are, which mask belongs to which image, and where each tile lies."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from marsls_keras.errors import InputError, listing

SPLITS = {
    "train": ("train", "train_partition", "training"),
    "val": ("val", "validation", "val_partition", "validation_partition"),
    "test": ("test", "test_partition"),
}
"""Names a split's folder may have."""

_GRID = (re.compile(r"patch_(?P<row>\d+)_(?P<col>\d+)$"), re.compile(r"col(?P<col>\d+)_row(?P<row>\d+)$"))

_HELP = """
Expected folders: train/images and train/masks, the same for val, and test/images (or train_partition/… as MMLS v1 has them).
To get MMLSv2, follow https://github.com/MAIN-Lab/MMLS_v2; challenge entrants download the tiles from the Mars-LS page on CodaBench.
To try without data: marsls synth data"""


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
    """Where a tile is, on disk and on Mars.

    Attributes:
        id: Unique name within the dataset, "<split>/<file stem>".
        image: Image file.
        mask: Mask file, None in an unlabelled split.
        split: "train", "val", "test", or "images" for a plain folder.
        raster: Name of the picture the tile was cut from; grid cells are comparable within one raster only.
        cell: (row, column) in the raster's grid, None if the name does not tell.
    """

    id: str
    image: Path
    mask: Path | None
    split: str
    raster: str
    cell: tuple[int, int] | None


def grid_key(stem: str) -> tuple[int, int] | None:
    """Return (row, column) from a file's stem: Image_patch_<row>_<col> or col<col>_row<row>; None for other names."""
    for pattern in _GRID:
        if match := pattern.search(stem):
            return int(match["row"]), int(match["col"])
    return None


def tiff_files(folder: Path) -> list[Path]:
    """Return the TIFF files of a folder, sorted, hidden files left out."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in (".tif", ".tiff") and not p.name.startswith("."))


def image_files(folder: str | Path) -> list[Path]:
    """Return the image tiles of a plain folder, or of its sub-folder `images`.

    Raises:
        InputError: If the folder is missing or empty, or two names would clash in the output (x.tif and x.tiff, or a.tif and A.tif).
    """
    folder = Path(folder)
    if (folder / "images").is_dir():
        folder = folder / "images"
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}. Give the folder that holds the image tiles.")
    files = tiff_files(folder)
    if not files:
        raise InputError(f"{folder} holds no .tif file.")
    stems = Counter(file.stem.lower() for file in files)
    clashing = [file.name for file in files if stems[file.stem.lower()] > 1]
    if clashing:
        raise InputError(
            f"Names in {folder} clash: predictions are named after the image, so each needs a name of its own.{listing(clashing)}"
        )
    return files


@dataclass(frozen=True)
class Dataset:
    """A folder of tiles.

    Format: `<split>/images/*.tif` with seven bands and `<split>/masks/*.tif` with {0, 1} or {0, 255}; the splits are train, val and
    test, or train_partition, validation_partition and test_partition. An image and its mask share their stem, or else their grid cell.
    A split without a folder `masks` is unlabelled. MMLS v1 (306 + 256 tiles) is from the MarsLS-Net paper (WACV 2024), MMLSv2
    (465 / 66 / 133 tiles and 276 isolated ones) from its own paper (2026); the challenge distributes the tiles of MMLSv2.

    Attributes:
        root: The folder.
        tiles: All tiles, ordered by split and name.
        problems: What is wrong with the folder's structure.
    """

    root: Path
    tiles: tuple[TileRef, ...]
    problems: tuple[Problem, ...] = ()

    @classmethod
    def open(cls, root: str | Path, strict: bool = True) -> Dataset:
        """Index a data folder without reading pixels.

        Args:
            root: Folder that holds the splits.
            strict: Raise if there are problems; otherwise they are listed in `problems`.

        Raises:
            InputError: If the folder is missing or holds no split, or, if strict, has any structural problem; all are listed.
        """
        root = Path(root)
        if not root.is_dir():
            raise InputError(f"There is no data folder {root} (set it with --data or MARSLS_DATA).{_HELP}")
        tiles: list[TileRef] = []
        problems: list[Problem] = []
        folders = {split: [root / name for name in names if (root / name).is_dir()] for split, names in SPLITS.items()}
        if not any(folders.values()):
            raise InputError(f"{root} holds none of the folders train, val, test.{_HELP}")
        for split, found in folders.items():
            if len(found) > 1:
                problems.append(Problem("ambiguous split", f"{split} is there twice: {', '.join(str(folder) for folder in found)}"))
            for folder in found[:1]:
                _index_split(split, folder, tiles, problems)
        tiles = _name_rasters(tiles)
        problems += _shared_cells(tiles)
        if strict and problems:
            raise InputError(f"{root} has {len(problems)} problem(s):{listing([p.message for p in problems])}")
        return cls(root, tuple(tiles), tuple(problems))

    @classmethod
    def from_images(cls, folder: str | Path) -> Dataset:
        """Index a plain folder of image tiles, without masks, as the split "images".

        Raises:
            InputError: If the folder is missing or empty, or names clash.
        """
        files = image_files(folder)
        return cls(files[0].parent, tuple(TileRef(f"images/{f.stem}", f, None, "images", "images", grid_key(f.stem)) for f in files))

    def split(self, *names: str) -> tuple[TileRef, ...]:
        """Return the tiles of the named splits.

        Raises:
            InputError: If one of them has no tile.
        """
        for name in names:
            if not any(tile.split == name for tile in self.tiles):
                there = sorted({tile.split for tile in self.tiles})
                raise InputError(f"{self.root} has no tile in the split {name!r}; it has {', '.join(there) or 'none at all'}.{_HELP}")
        return tuple(tile for tile in self.tiles if tile.split in names)


def _index_split(split: str, folder: Path, tiles: list[TileRef], problems: list[Problem]) -> None:
    """Add the tiles of one split folder and what is wrong with it."""
    images_folder, masks_folder = folder / "images", folder / "masks"
    images = tiff_files(images_folder) if images_folder.is_dir() else []
    if not images:
        problems.append(Problem("empty split", f"{images_folder} holds no .tif file; fill it or remove {folder}"))
        return
    labelled = masks_folder.is_dir()
    masks = tiff_files(masks_folder) if labelled else []
    for files in (images, masks):
        clashing = [stem for stem, number in Counter(file.stem for file in files).items() if number > 1]
        problems += [Problem("duplicate", f"{files[0].parent / stem} is there as .tif and .tiff") for stem in clashing]
    if split == "train" and not labelled:
        problems.append(Problem("missing mask", f"{folder} has images but no folder masks"))
    pairs = _pair(images, masks, problems if labelled else [])
    tiles += [TileRef(f"{split}/{image.stem}", image, mask, split, "", grid_key(image.stem)) for image, mask in pairs.items()]


def _pair(images: list[Path], masks: list[Path], problems: list[Problem]) -> dict[Path, Path | None]:
    """Give each image its mask: the one of the same stem, else the one of the same grid cell; report what is left over."""
    by_stem = {mask.stem: mask for mask in masks}
    by_cell: dict[tuple[int, int], Path] = {}
    for mask in masks:
        if (cell := grid_key(mask.stem)) is not None:
            if cell in by_cell and by_cell[cell].stem != mask.stem:
                problems.append(Problem("duplicate", f"{mask} and {by_cell[cell].name} are masks of the same grid cell"))
            by_cell[cell] = mask
    pairs: dict[Path, Path | None] = {}
    for image in images:
        cell = grid_key(image.stem)
        pairs[image] = by_stem.get(image.stem) or (by_cell.get(cell) if cell is not None else None)
        if pairs[image] is None:
            problems.append(Problem("missing mask", f"{image} has no mask of the same name or grid cell"))
    known = {image.stem for image in images} | {grid_key(image.stem) for image in images} - {None}
    missing = [mask for mask in masks if not known & {mask.stem, grid_key(mask.stem)}]
    problems += [Problem("missing image", f"{mask} has no image of the same name or grid cell") for mask in missing]
    return pairs


def _name_rasters(tiles: Iterable[TileRef]) -> list[TileRef]:
    """Tell which picture each tile was cut from.

    In every release train and val are cut from one raster. Test is too in MMLSv2 and phase 1 of the challenge; it is another raster in
    MMLS v1 (its names begin with ImageT_) and in phase 2, where its grid cells therefore meet those of the training tiles.
    """
    tiles = list(tiles)
    base = {tile.cell for tile in tiles if tile.split != "test" and tile.cell is not None}
    test = [tile for tile in tiles if tile.split == "test"]
    apart = any(tile.image.stem.startswith("ImageT_") or tile.cell in base for tile in test)
    named = {"train": "base", "val": "base", "test": "test" if apart else "base"}
    return [TileRef(t.id, t.image, t.mask, t.split, named[t.split], t.cell) for t in tiles]


def _shared_cells(tiles: Iterable[TileRef]) -> list[Problem]:
    """Report grid cells that several tiles of one raster claim."""
    claims = defaultdict(list)
    for tile in tiles:
        if tile.cell is not None:
            claims[tile.raster, tile.cell].append(tile.image)
    return [
        Problem("duplicate", f"{' and '.join(map(str, images))} claim the same grid cell (row {cell[0]}, column {cell[1]})")
        for (_, cell), images in claims.items()
        if len(images) > 1
    ]
