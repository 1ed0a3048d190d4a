"""The folder layout of a dataset: folders of images and masks, file endings, and how images and masks are paired."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

SPLITS = {
    "train": ("train", "train_partition", "training"),
    "val": ("val", "validation", "valid", "val_partition", "validation_partition"),
    "test": ("test", "test_partition"),
}
"""Folder names that are recognised for each split."""

TIFF = (".tif", ".tiff")


@dataclass(frozen=True)
class Part:
    """A folder of images and its folder of masks.

    Attributes:
        split: The split of its tiles: train, val or test.
        folder: The folder that a user would remove to leave the part out.
        images: Folder of the images.
        masks: Folder of the masks; it need not exist.
        landslide: Whether all its tiles hold landslide (True) or none does (False); None if
            only the masks tell.

    Example:
        >>> Part("train", Path("data/train"), Path("data/train/images"), Path("data/train/masks")).landslide is None
        True
    """

    split: str
    folder: Path
    images: Path
    masks: Path
    landslide: bool | None = None


def file_stem(file: Path) -> str:
    """Return the name of a file without its ending, the usual key that pairs an image and its mask.

    Example:
        >>> file_stem(Path("masks/10001.png"))
        '10001'
    """
    return file.stem


def any_parts(parts: list[Part]) -> bool:
    """Return whether a list of parts is not empty.

    Example:
        >>> any_parts([])
        False
    """
    return bool(parts)


@dataclass(frozen=True)
class Layout:
    """The folder layout of a dataset.

    Releases that share a layout are told apart by their files.

    Attributes:
        name: Name of the layout, used in messages.
        folders: Names of its folders, for messages, after "holds none of the folders".
        example: Folders of images and masks, for messages, after "Expected folders:" and the dataset's title.
        parts: Function that returns the parts of a data folder.
        images: Endings of image files, lower case, with their dot.
        masks: Endings of mask files.
        keys: Functions from a file to the key that pairs an image and its mask, or None, by a word for messages; the
            first key that matches decides.
        grid: Whether file names contain the tiles' grid cells (`Release.cell`), which then also pair an image and its
            mask.
        found: Function that decides whether the parts of a data folder, perhaps none, are those of this layout.
        origin: How to get the data, in one line; "" if unknown.

    Example:
        >>> parts = in_splits(("rgb",), ("labels",))
        >>> layout = Layout("mine", "train, test", "train/rgb, train/labels", parts, (".tif",), (".png",))
        >>> layout.parts(Path("nowhere"))
        []
    """

    name: str
    folders: str
    example: str
    parts: Callable[[Path], list[Part]]
    images: tuple[str, ...]
    masks: tuple[str, ...]
    keys: Mapping[str, Callable[[Path], Hashable | None]] = field(default_factory=lambda: {"name": file_stem})
    grid: bool = False
    found: Callable[[list[Part]], bool] = any_parts
    origin: str = ""


def in_splits(images: tuple[str, ...], masks: tuple[str, ...]) -> Callable[[Path], list[Part]]:
    """Return a function that finds the folders `<split>/<images>` and `<split>/<masks>` of a data folder.

    If several names are given, the first that exists is used.

    Args:
        images: Names that the folder of images may have.
        masks: Names that the folder of masks may have.

    Example:
        >>> in_splits(("images",), ("masks",))(Path("nowhere"))
        []
    """

    def parts(root: Path) -> list[Part]:
        return [
            Part(split, folder, _first(folder, images), _first(folder, masks))
            for split, names in SPLITS.items()
            for folder in (root / name for name in names)
            if folder.is_dir()
        ]

    return parts


def list_files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Return the sorted files of a folder with one of the endings, without hidden files; [] if there is no folder.

    Example:
        >>> list_files(Path("nowhere"), TIFF)
        []
    """
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in endings and not p.name.startswith("."))


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    return next((folder / name for name in names if (folder / name).is_dir()), folder / names[0])
