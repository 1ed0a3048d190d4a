"""Disk cache of decoded tiles: memory-mapped files that are read on demand, for data larger than memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from marsls_keras.data.formats.georeference import world_file
from marsls_keras.data.formats.tiff import mask_beside
from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.errors import InputError, RunError
from marsls_keras.files import read_json, write_json

LARGE = 1 << 30
"""Bytes of images above which data.cache "auto" keeps tiles on disk; training in memory takes about four times this."""

_FORM = 3
"""Version of cache entries; increase it when their files, or the decoding of tiles, change."""

_CHUNK = 1 << 26


class DiskImages:
    """Tiles on disk as an array-like (N, H, W, C); indexing reads only the selected tiles into memory.

    Args:
        files: N files, one per tile: little-endian float32 in C order.
        tile: Shape of a tile, (H, W, C).

    Attributes:
        shape: (N, H, W, C).
        dtype: Type of the values.

    Example:
        >>> images = DiskImages(["0.bin", "1.bin"], (128, 128, 7))  # doctest: +SKIP
        >>> images[0].shape, images[:].shape  # doctest: +SKIP
        ((128, 128, 7), (2, 128, 128, 7))
    """

    def __init__(self, files: Sequence[str | Path] | np.ndarray, tile: tuple[int, ...]) -> None:
        self.files = np.array(list(map(str, files)), object)
        self.shape = (len(files), *tile)
        self.dtype = np.dtype("<f4")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, which: Any) -> np.ndarray:
        """Return one tile (H, W, C) by its position, or (n, H, W, C) by a slice or n positions."""
        chosen = self.files[which]
        if isinstance(chosen, str):
            return np.array(self._map(chosen))
        tiles = np.empty((len(chosen), *self.shape[1:]), np.float32)
        for place, file in zip(tiles, chosen, strict=True):
            place[...] = self._map(file)
        return tiles

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(f"{len(self)} tiles on disk are not to be read at once.")

    def select(self, which: np.ndarray) -> DiskImages:
        """Return the tiles at n positions, still on disk."""
        return DiskImages(self.files[which], self.shape[1:])

    def pixels(self, tile: np.ndarray, pixel: np.ndarray) -> np.ndarray:
        """Return n pixels (n, C), given the position of each one's tile and its row-major index in that tile."""
        values = np.empty((len(tile), self.shape[3]), np.float32)
        order = np.argsort(tile, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(tile[order])) + 1):
            if len(places):
                values[places] = self._map(self.files[tile[places[0]]]).reshape(-1, self.shape[3])[pixel[places]]
        return values

    def _map(self, file: str) -> np.ndarray:
        return np.memmap(file, self.dtype, "r", shape=self.shape[1:])


Images = np.ndarray | DiskImages
"""Images (N, H, W, C) in memory or on disk."""


def select(images: Images, which: np.ndarray) -> Images:
    """Return the images at these positions: a copy in memory, or a reference to the same files on disk.

    Example:
        >>> select(np.arange(3), np.array([2, 0]))
        array([2, 0])
    """
    return images.select(which) if isinstance(images, DiskImages) else images[which]


def chunks(images: Any, multiple: int = 1) -> Iterator[slice]:
    """Yield consecutive slices that cover all images, each of up to 64 MiB or of `multiple` tiles if those are larger.

    The length of each slice but the last is a multiple of `multiple`.

    Example:
        >>> list(chunks(np.zeros((3, 8, 8, 7), np.float32)))
        [slice(0, 3, None)]
    """
    tile = int(np.prod(images.shape[1:])) * images.dtype.itemsize
    step = max(_CHUNK // tile // multiple, 1) * multiple
    for first in range(0, len(images), step):
        yield slice(first, min(first + step, len(images)))


def take_pixels(images: Images, positions: np.ndarray) -> np.ndarray:
    """Return the pixels (n, C) at n positions in the flattened sequence of all images' pixels.

    Example:
        >>> take_pixels(np.arange(8.0).reshape(1, 2, 2, 2), np.array([3]))
        array([[6., 7.]])
    """
    _, height, width, bands = images.shape
    if isinstance(images, DiskImages):
        return images.pixels(*np.divmod(positions, height * width))
    return images.reshape(-1, bands)[positions]


class TileWriter:
    """Collect decoded tiles one after another, in arrays or in files.

    Masks and validity take little room and are held in memory in both cases.

    Args:
        number: Largest number of tiles.
        shape: Shape of a tile, (H, W, C).
        folder: Folder of the files; None for arrays.

    Example:
        >>> writer = TileWriter(2, (4, 4, 1), folder=None)
        >>> writer.add(np.zeros((4, 4, 1), np.float32), np.zeros((4, 4), np.uint8), np.ones((4, 4), bool))
        >>> writer.arrays()["images"].shape
        (1, 4, 4, 1)
    """

    def __init__(self, number: int, shape: tuple[int, ...], folder: Path | None) -> None:
        self.number, self._shape, self._folder = 0, shape, folder
        self._masks, self._valid = np.empty((number, *shape[:2]), np.uint8), np.empty((number, *shape[:2]), bool)
        self._images = np.empty((number if folder is None else 0, *shape), np.float32)

    def add(self, image: np.ndarray, mask: np.ndarray, valid: np.ndarray) -> None:
        """Append a tile: image float32 (H, W, C), mask uint8 (H, W) and validity bool (H, W)."""
        self._masks[self.number], self._valid[self.number] = mask, valid
        if self._folder is None:
            self._images[self.number] = image
        else:
            # Written, not mapped: on a full disk writing raises an error, but a mapped page kills the process.
            _file(self._folder, self.number).write_bytes(np.ascontiguousarray(image, "<f4").data)
        self.number += 1

    def arrays(self) -> dict[str, Any]:
        """Return "images", "masks" and "valid" of the tiles added; a folder also gets masks and validity as files."""
        masks, valid = self._masks[: self.number], self._valid[: self.number]
        if self._folder is None:
            return {"images": self._images[: self.number], "masks": masks, "valid": valid}
        np.save(self._folder / "masks.npy", masks)
        np.save(self._folder / "valid.npy", valid)
        return {"images": _stored(self._folder, (self.number, *self._shape)), "masks": masks, "valid": valid}


def _file(folder: Path, tile: int) -> Path:
    """Return the path of a tile's pixels in a folder of the cache."""
    return folder / f"{tile}.bin"


def _stored(folder: Path, shape: Sequence[int]) -> DiskImages:
    """Return the tiles in a folder filled by a `TileWriter`, given their shape (N, H, W, C)."""
    return DiskImages([_file(folder, i) for i in range(shape[0])], tuple(shape[1:]))


def cache_folder() -> Path:
    """Return the cache folder: the variable MARSLS_CACHE, or marsls in the user's cache folder.

    Example:
        >>> cache_folder()  # doctest: +SKIP
        PosixPath('/home/user/.cache/marsls')
    """
    own = os.environ.get("MARSLS_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marsls"


def cached(
    refs: Sequence[TileRef], settings: Sequence[Any], make: Callable[[Path], dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return decoded tiles from the cache folder; decode them first if they are not there.

    An entry is identified by the names, sizes and modification times of its files and by the settings. It appears
    whole or not at all, and a damaged one is made again. If another process is making the same entry, this one waits. A
    new entry replaces the older one of the same folder, splits and settings, and entries left unfinished by killed
    processes are removed.

    Args:
        refs: The tiles.
        settings: Everything else that the result depends on, as JSON values.
        make: Fills a folder through a `TileWriter` and returns facts that can be written as JSON, with the shape
            (N, H, W, C) of the tiles as "shape".

    Returns:
        The facts, and "images" on disk (`DiskImages`), "masks" and "valid" in memory.

    Raises:
        RunError: If the folder cannot be written, or the disk is full.

    Example:
        >>> facts, arrays = cached(dataset.tiles, ("auto", None), make)  # doctest: +SKIP
        >>> arrays["images"].shape  # doctest: +SKIP
        (531, 128, 128, 7)
    """
    named = [
        path
        for ref in refs
        for path in (ref.image, ref.mask, *ref.more_masks, world_file(ref.image))
        if path is not None
    ]
    files = [str(path.absolute()) for path in (*named, *filter(Path.is_file, map(mask_beside, named)))]
    place = [os.path.commonpath(files), sorted({ref.split for ref in refs}), list(settings), _FORM]
    stats = [(ref.id, ref.raster, ref.landslide, ref.release) for ref in refs], [(file, *_stat(file)) for file in files]
    root, scope = cache_folder(), _digest(place)
    path, unfinished = root / f"{scope}-{_digest([place, stats])}", root / f".{scope}.unfinished"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{scope}.lock"):
            entry = _entry(path)
            if entry is None:
                _sweep(root, unfinished)
                shutil.rmtree(unfinished, ignore_errors=True)
                try:
                    unfinished.mkdir()
                    facts = make(unfinished)
                    write_json(unfinished / "facts.json", {**facts, "sha256": _digest(facts)})
                    for earlier in root.glob(f"{scope}-*"):
                        shutil.rmtree(earlier, ignore_errors=True)
                    os.rename(unfinished, path)
                finally:
                    shutil.rmtree(unfinished, ignore_errors=True)
                entry = _entry(path)
            if entry is None:
                raise OSError(f"what was just written to {path} cannot be read")
            return entry
    except OSError as error:
        reason = error.strerror or error
        raise RunError(
            f"Could not keep decoded tiles in {root}: {reason}. "
            "Free some space, name another folder with MARSLS_CACHE, or set data.cache=memory."
        ) from error


def _stat(file: str) -> tuple[int, int]:
    """Return size and modification time of a file, or zeros if it is gone (reading it will raise the error)."""
    try:
        found = os.stat(file)
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _digest(value: Any) -> str:
    """Return 24 hexadecimal digits of the SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


def _entry(path: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Read a cache entry; None if it is missing or damaged, since it can be made again."""
    if not (path / "facts.json").is_file():
        return None
    try:
        facts = read_json(path / "facts.json")
        if not isinstance(facts, dict) or facts.pop("sha256", None) != _digest(facts):
            return None
        arrays = {name: np.load(path / f"{name}.npy", allow_pickle=False) for name in ("masks", "valid")}
    except (InputError, OSError, ValueError, EOFError):
        return None
    number, *tile = facts["shape"]
    found = {entry.name: entry.stat().st_size for entry in os.scandir(path)}
    whole = all(found.get(_file(path, i).name, -1) == int(np.prod(tile)) * 4 for i in range(number))
    kinds = {"masks": np.uint8, "valid": np.bool_}
    whole &= all(array.dtype == kinds[name] and array.shape == (number, *tile[:2]) for name, array in arrays.items())
    return (facts, {"images": _stored(path, facts["shape"]), **arrays}) if whole else None


def _sweep(root: Path, own: Path) -> None:
    """Remove unfinished entries of killed processes (nobody holds their lock), except `own`."""
    for left in set(root.glob(".*.unfinished")) - {own}:
        with suppress(Timeout), FileLock(left.with_suffix(".lock"), timeout=0):
            shutil.rmtree(left, ignore_errors=True)
