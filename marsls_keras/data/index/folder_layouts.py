"""The folder layouts that datasets come in: where their images and masks lie, and which mask belongs to which image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from marsls_keras.data.index.conflicts import same_image, settle
from marsls_keras.data.index.tile_ref import Problem, TileRef, grid_key, list_files, raster_key, raster_keys
from marsls_keras.errors import InputError

SPLITS = {
    "train": ("train", "train_partition", "training"),
    "val": ("val", "validation", "valid", "val_partition", "validation_partition"),
    "test": ("test", "test_partition"),
}
"""Names a split's folder may have."""

TIFF = (".tif", ".tiff")
_CELL = "grid cell"


@dataclass(frozen=True)
class Part:
    """A folder of images and its folder of masks.

    Attributes:
        split: The split that its tiles are of.
        folder: What to remove if it is not wanted.
        images: Folder of the images.
        masks: Folder of the masks; it need not exist.
        landslide: Whether all its tiles hold landslide, or none of them does; None if only the masks tell.
    """

    split: str
    folder: Path
    images: Path
    masks: Path
    landslide: bool | None = None


@dataclass(frozen=True)
class Layout:
    """How a dataset lies on disk.

    Attributes:
        release: The release it is of, or "auto" if the files tell.
        parts: Gives the parts that a data folder has.
        images: Endings of the images.
        masks: Endings of the masks.
        keys: What an image and its mask may have in common, in the order in which it decides: a name for messages, and how a file has it.
    """

    release: str
    parts: Callable[[Path], list[Part]]
    images: tuple[str, ...]
    masks: tuple[str, ...]
    keys: dict[str, Callable[[Path], Hashable | None]]

    def index(self, root: Path, conflicts: str = "error") -> tuple[list[TileRef], list[Problem]]:
        """Return the tiles of a data folder, ordered by split and name, and what is wrong with its structure.

        Pixels are read of tiles in one grid cell only; for `conflicts` see `marsls_keras.data.index.conflicts.settle`.
        """
        tiles: list[TileRef] = []
        problems: list[Problem] = []
        claims = defaultdict(list)
        for part in self.parts(root):
            claims[part.split, part.landslide].append(part)
        for (split, _), found in claims.items():
            if len(found) > 1:
                problems.append(Problem("ambiguous split", f"{split} is there twice: {', '.join(str(part.folder) for part in found)}"))
            self._index_part(found[0], tiles, problems)
        if _CELL in self.keys:
            tiles, wrong = settle(_name_rasters(tiles), conflicts)
            problems += wrong
        return tiles, problems

    def _index_part(self, part: Part, tiles: list[TileRef], problems: list[Problem]) -> None:
        """Add the tiles of one part and what is wrong with it."""
        images, masks = list_files(part.images, self.images), list_files(part.masks, self.masks)
        if not images:
            problems.append(Problem("empty split", f"{part.images} holds no {self.images[0]} file; fill it or remove {part.folder}"))
            return
        layout = self._of_part(images, masks)
        for kind, files in (("images", images), ("masks", masks)):
            problems += layout._twins(kind, files)
        labelled = part.masks.is_dir()
        if part.split == "train" and not labelled and part.landslide is not False:
            problems.append(Problem("missing mask", f"{part.folder} has images but no folder {part.masks.name}"))
        # Tiles without landslide need no masks; if there are some they are checked.
        pairs = layout._pair(images, masks, problems, labelled and part.landslide is not False)
        label = "" if part.landslide is None else f"/{part.folder.name}"
        for image in images:
            name = f"{part.split}{label}/{image.stem}"  # a raster of its own
            cell = grid_key(image.stem) if _CELL in self.keys else None
            tiles.append(TileRef(name, image, pairs[image], part.split, name, cell, part.landslide, self.release))

    def _of_part(self, images: list[Path], masks: list[Path]) -> Layout:
        """Return this layout as it pairs the files of one part: by cells alone, unless both images and masks tell of several pictures."""
        if _CELL not in self.keys:
            return self
        names = [raster_keys(file.stem for file in files) for files in (images, masks)]
        if all(len(set(known.values())) > 1 for known in names):
            return self
        cells = [[cell for file in files if (cell := grid_key(file.stem)) is not None] for files in (images, masks)]
        several = any(len(set(known.values())) > 1 and len(set(there)) < len(there) for known, there in zip(names, cells, strict=True))
        return self if several else replace(self, keys={**self.keys, _CELL: _cell})

    def _twins(self, kind: str, files: list[Path]) -> list[Problem]:
        """Report files that cannot be told from one another."""
        problems = []
        for what, key in self.keys.items():
            groups = defaultdict(list)
            for file in files:
                if (value := key(file)) is not None:
                    groups[value].append(file)
            for twins in groups.values():
                first, *others = twins
                if what == "name" and others:
                    endings = " and ".join(file.suffix for file in twins)
                    problems.append(Problem("duplicate", f"{first.with_suffix('')} is there as {endings}"))
                elif len({file.stem for file in twins}) > 1 and (kind == "masks" or what != _CELL):  # `settle` has those
                    others = [file for file in others if file.stem != first.stem]
                    problems.append(Problem("duplicate", f"{others[0]} and {first.name} are {kind} of the same {what}"))
        return problems

    def _pair(self, images: list[Path], masks: list[Path], problems: list[Problem], needed: bool) -> dict[Path, Path | None]:
        """Give each image its mask: the one that has the first key in common, else the next; report what is left over."""
        tables = [{key(mask): mask for mask in masks if key(mask) is not None} for key in self.keys.values()]
        what = " or ".join(self.keys)
        pairs: dict[Path, Path | None] = {}
        for image in images:
            found = (table.get(key(image)) for key, table in zip(self.keys.values(), tables, strict=True))
            pairs[image] = next((mask for mask in found if mask is not None), None)
            if pairs[image] is None and needed:
                problems.append(Problem("missing mask", f"{image} has no mask of the same {what}"))
        known = [{key(image) for image in images} - {None} for key in self.keys.values()]
        for mask in masks:
            if not any(key(mask) in values for key, values in zip(self.keys.values(), known, strict=True)):
                problems.append(Problem("missing image", f"{mask} has no image of the same {what}"))
        return pairs


def _splits(images: tuple[str, ...], masks: tuple[str, ...]) -> Callable[[Path], list[Part]]:
    """Return what finds `<split>/<images>` and `<split>/<masks>`, of several names the first that is there."""

    def parts(root: Path) -> list[Part]:
        return [
            Part(split, folder, _first(folder, images), _first(folder, masks))
            for split, names in SPLITS.items()
            for folder in (root / name for name in names)
            if folder.is_dir()
        ]

    return parts


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    return next((folder / name for name in names if (folder / name).is_dir()), folder / names[0])


def _landslide4sense(root: Path) -> list[Part]:
    """Find the folders of the challenge, TrainData/img and TrainData/mask, or of its copies, images/train and annotations/train."""
    parts = []
    for split, old, new in (("train", "TrainData", "train"), ("val", "ValidData", "validation"), ("test", "TestData", "test")):
        if (root / old).is_dir():
            parts.append(Part(split, root / old, root / old / "img", root / old / "mask"))
        if (root / "images" / new).is_dir():
            parts.append(Part(split, root / "images" / new, root / "images" / new, root / "annotations" / new))
    return parts


def _bijie(root: Path) -> list[Part]:
    names = {"landslide": True, "non-landslide": False}
    folders = {root / name: holds for name, holds in names.items() if (root / name / "image").is_dir()}
    return [Part("train", folder, folder / "image", folder / "mask", holds) for folder, holds in folders.items()]


def _stem(file: Path) -> str:
    return file.stem


def _cell(file: Path) -> tuple[int, int] | None:
    return grid_key(file.stem)


def _place(file: Path) -> tuple[str, tuple[int, int]] | None:
    cell = grid_key(file.stem)
    return None if cell is None else (raster_key(file.stem), cell)


def _number(file: Path) -> int | None:
    match = re.fullmatch(r"(?:image|mask)_(\d+)", file.stem)
    return int(match[1]) if match else None


def _name_rasters(tiles: Iterable[TileRef]) -> list[TileRef]:
    """Tell which picture each tile was cut from: names such as siteA_col00001_row00002 tell, else there is one.

    In every release train and val are cut from one raster, and in MMLS v1, MMLSv2 and phase 1 of the challenge test is, too. In phase 2 it
    is another one, whose grid cells meet those of the training tiles with other images.
    """
    tiles = list(tiles)
    keys = raster_keys(tile.image.stem for tile in tiles)
    named = [replace(tile, raster=keys.get(tile.image.stem) or "base") for tile in tiles]
    base = {(tile.raster, tile.cell): tile.image for tile in named if tile.split != "test" and tile.cell is not None}
    apart: set[str] = set()
    for tile in named:
        image = base.get((tile.raster, tile.cell)) if tile.split == "test" and tile.cell is not None else None
        if image is not None and tile.raster not in apart and not same_image(image, tile.image):
            apart.add(tile.raster)
    return [
        replace(tile, raster="test" if tile.raster == "base" else f"{tile.raster} test")
        if tile.split == "test" and tile.raster in apart
        else tile
        for tile in named
    ]


LAYOUTS = {
    "mars": Layout("auto", _splits(("images",), ("masks",)), TIFF, TIFF, {"name": _stem, _CELL: _place}),
    "landslide4sense": Layout("landslide4sense", _landslide4sense, (".h5",), (".h5",), {"number": _number}),
    "bijie": Layout("bijie", _bijie, (".png",), (".png",), {"name": _stem}),
    "nepal": Layout(
        "nepal",
        _splits(("images", "image", "img"), ("masks", "mask", "labels", "label")),
        (*TIFF, ".png"),
        (".png", *TIFF),
        {"name": _stem},
    ),
}
"""The layouts by name."""


def masks_beside(images: list[Path]) -> dict[Path, Path | None]:
    """Return the mask of each image of one folder of the Mars layout from the folder `masks` beside it, None where there is none."""
    masks = list_files(images[0].parent.with_name("masks"), TIFF)
    return LAYOUTS["mars"]._of_part(images, masks)._pair(images, masks, [], False)


def detect_layout(root: Path) -> str | None:
    """Return the name of the layout that a data folder has, or None if it holds nothing that is known.

    Raises:
        InputError: If it has several.
    """
    found = [name for name in ("landslide4sense", "bijie") if LAYOUTS[name].parts(root)]
    splits = LAYOUTS["nepal"].parts(root)
    if any(_only_png(part.masks) or _only_png(part.images) for part in splits):
        found.append("nepal")
    elif splits:
        found.append("mars")
    if len(found) > 1:
        raise InputError(f"{root} holds folders of {' and of '.join(found)}. Keep one dataset to a folder, or choose with --release.")
    return found[0] if found else None


def _only_png(folder: Path) -> bool:
    return bool(list_files(folder, (".png",))) and not list_files(folder, TIFF)
