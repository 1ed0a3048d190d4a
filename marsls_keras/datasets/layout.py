"""How a dataset lies on disk: which folders hold images and masks, and how their files are named."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

SPLITS = {
    "train": ("train", "train_partition", "training"),
    "val": ("val", "validation", "valid", "val_partition", "validation_partition"),
    "test": ("test", "test_partition"),
}
"""Names that the folder of a split may have."""

TIFF = (".tif", ".tiff")


@dataclass(frozen=True)
class Part:
    """A folder of images and its folder of masks.

    Attributes:
        split: The split of its tiles: train, val or test.
        folder: The folder to remove if it is not wanted.
        images: Folder of the images.
        masks: Folder of the masks; it need not exist.
        landslide: Whether all its tiles hold landslide (True) or none does (False); None if only the masks tell.

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
    """Return the file's name without its ending, by which an image and its mask belong together in most datasets.

    Example:
        >>> file_stem(Path("masks/10001.png"))
        '10001'
    """
    return file.stem


def any_parts(parts: list[Part]) -> bool:
    """Return whether a data folder has any part of a layout.

    Example:
        >>> any_parts([])
        False
    """
    return bool(parts)


@dataclass(frozen=True)
class Layout:
    """The folder layout of a dataset. Releases that share one are told from each other by their files.

    Attributes:
        name: Name of the layout, used in messages.
        folders: Names of its folders, to follow "holds none of the folders".
        example: Where images and masks lie, to follow "Expected folders:" and the dataset's title.
        parts: Returns the parts that a data folder has.
        images: Endings of image files, lower case, with their dot.
        masks: Endings of mask files.
        keys: What an image and its mask may have in common, in the order in which it decides: a word for messages, and
            a function from the file to that value, or to None.
        grid: Whether names tell the tiles' grid cells (`Release.cell`); an image and its mask may then have the cell in
            common, too.
        found: Whether the parts that were found, perhaps none, are those of this layout.
        origin: How to get the data, in one line; "" if that is not told.

    Example:
        >>> layout = Layout("mine", "train, test", "train/rgb, train/labels", in_splits(("rgb",), ("labels",)), (".tif",), (".png",))
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
    """Return a function that finds `<split>/<images>` and `<split>/<masks>`, of several names the first that exists.

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
    """Return the files of a folder that have one of these endings, sorted, without hidden ones; none without a folder.

    Example:
        >>> list_files(Path("nowhere"), TIFF)
        []
    """
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in endings and not p.name.startswith("."))


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    return next((folder / name for name in names if (folder / name).is_dir()), folder / names[0])
