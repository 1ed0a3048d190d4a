"""Detect the layout of a data folder, pair images with masks, and find structural problems."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from marsls_keras.data.index.conflicts import same_image, settle
from marsls_keras.data.index.tile_ref import Problem, TileRef, raster_key, raster_keys
from marsls_keras.datasets import grid_key, layouts, releases_of
from marsls_keras.datasets.layout import Layout, Part, list_files
from marsls_keras.errors import InputError

_CELL = "grid cell"


def index_folder(root: Path, layout: Layout, conflicts: str = "error") -> tuple[list[TileRef], list[Problem]]:
    """Return the tiles of a data folder, ordered by split and name, and its structural problems.

    Pixels are read only of tiles that share a grid cell.

    Args:
        root: The data folder.
        layout: Its layout.
        conflicts: Treatment of copies of a tile whose masks differ (`marsls_keras.data.index.conflicts.settle`).

    Example:
        >>> index_folder(Path("nowhere"), layouts()[0])
        ([], [])
    """
    tiles: list[TileRef] = []
    problems: list[Problem] = []
    claims = defaultdict(list)
    for part in layout.parts(root):
        claims[part.split, part.landslide].append(part)
    for (split, _), found in claims.items():
        if len(found) > 1:
            problems.append(
                Problem("ambiguous split", f"{split} is there twice: {', '.join(str(part.folder) for part in found)}")
            )
        _index_part(found[0], layout, tiles, problems)
    if layout.grid:
        tiles, wrong = settle(_name_rasters(tiles), conflicts)
        problems += wrong
    return tiles, problems


def _index_part(part: Part, layout: Layout, tiles: list[TileRef], problems: list[Problem]) -> None:
    """Append the tiles and the problems of one part of the layout to the given lists."""
    images, masks = list_files(part.images, layout.images), list_files(part.masks, layout.masks)
    if not images:
        problems.append(
            Problem("empty split", f"{part.images} holds no {layout.images[0]} file; fill it or remove {part.folder}")
        )
        return
    pairing = Pairing.of(layout, images, masks)
    for kind, files in (("images", images), ("masks", masks)):
        problems += pairing.twins(kind, files)
    labelled = part.masks.is_dir()
    if part.split == "train" and not labelled and part.landslide is not False:
        problems.append(Problem("missing mask", f"{part.folder} has images but no folder {part.masks.name}"))
    # Tiles without landslide need no masks, but existing masks are checked.
    pairs = pairing.pair(images, masks, problems, labelled and part.landslide is not False)
    label = "" if part.landslide is None else f"/{part.folder.name}"
    names = releases_of(layout)
    release = names[0] if len(names) == 1 else "auto"
    for image in images:
        name = f"{part.split}{label}/{image.stem}"  # also the raster: without a grid each tile is its own
        cell = grid_key(image.stem) if layout.grid else None
        tiles.append(TileRef(name, image, pairs[image], part.split, name, cell, part.landslide, release))


@dataclass(frozen=True)
class Pairing:
    """Rules by which masks are matched to images.

    Attributes:
        keys: Functions from a file to a value that is equal for an image and its mask, in order of priority, by the
            name of that value in messages; None matches nothing.

    Example:
        >>> Pairing({"name": lambda file: file.stem}).pair([Path("images/1.tif")], [Path("masks/1.png")], [], True)
        {PosixPath('images/1.tif'): PosixPath('masks/1.png')}
    """

    keys: Mapping[str, Callable[[Path], Hashable | None]]

    @classmethod
    def of(cls, layout: Layout, images: list[Path], masks: list[Path]) -> Pairing:
        """Return the pairing by a layout's keys; grid cells are compared within rasters only if there are several."""
        if not layout.grid:
            return cls(layout.keys)
        names = [raster_keys(file.stem for file in files) for files in (images, masks)]
        cells = [[cell for file in files if (cell := grid_key(file.stem)) is not None] for files in (images, masks)]
        both = all(len(set(known.values())) > 1 for known in names)
        several = any(
            len(set(known.values())) > 1 and len(set(there)) < len(there)
            for known, there in zip(names, cells, strict=True)
        )
        return cls({**layout.keys, _CELL: _place if both or several else _cell})

    def twins(self, kind: str, files: list[Path]) -> list[Problem]:
        """Report files of which several have the same key."""
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
                elif len({file.stem for file in twins}) > 1 and (kind == "masks" or what != _CELL):
                    # `settle` reports images in the same grid cell.
                    others = [file for file in others if file.stem != first.stem]
                    problems.append(Problem("duplicate", f"{others[0]} and {first.name} are {kind} of the same {what}"))
        return problems

    def pair(
        self, images: list[Path], masks: list[Path], problems: list[Problem], needed: bool
    ) -> dict[Path, Path | None]:
        """Match each image with a mask by the first key that both have; report missing and surplus masks."""
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


def _cell(file: Path) -> tuple[int, int] | None:
    """Return the grid cell in a file's name; None without one."""
    return grid_key(file.stem)


def _place(file: Path) -> tuple[str, tuple[int, int]] | None:
    """Return the raster's name and the grid cell in a file's name; None without a cell."""
    cell = grid_key(file.stem)
    return None if cell is None else (raster_key(file.stem), cell)


def _name_rasters(tiles: Iterable[TileRef]) -> list[TileRef]:
    """Set the raster of each tile: from names such as siteA_col00001_row00002 if they have one, else "base".

    In every release train and val are cut from one raster; in MMLS v1, MMLSv2 and phase 1 of the challenge test is,
    too. In phase 2, test has another raster, whose grid cells overlap those of the training tiles but hold other
    images: then the raster of the test tiles is named "test", or has " test" after its name.
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


def masks_beside(images: list[Path], layout: Layout) -> dict[Path, Path | None]:
    """Return the mask of each image of a folder, from the folder `masks` beside it; None where there is none.

    Example:
        >>> masks_beside([Path("nowhere/images/1.tif")], layouts()[0])
        {PosixPath('nowhere/images/1.tif'): None}
    """
    masks = list_files(images[0].parent.with_name("masks"), layout.masks)
    return Pairing.of(layout, images, masks).pair(images, masks, [], False)


def detect_layout(root: Path) -> Layout | None:
    """Return the layout of a data folder, or None if no layout matches.

    Raises:
        InputError: If several layouts match.

    Example:
        >>> detect_layout(Path("nowhere")) is None
        True
    """
    found = [
        (layout, {part.folder for part in parts})
        for layout in layouts()
        if (parts := layout.parts(root)) and layout.found(parts)
    ]
    # Folders of a later, more specific layout, such as splits with PNG, do not also count for an earlier one.
    apart = [
        layout
        for i, (layout, folders) in enumerate(found)
        if not any(folders <= others for _, others in found[i + 1 :])
    ]
    if len(apart) > 1:
        names = " and of ".join(layout.name for layout in apart)
        raise InputError(f"{root} holds folders of {names}. Keep one dataset to a folder, or choose with --release.")
    return apart[0] if apart else None
