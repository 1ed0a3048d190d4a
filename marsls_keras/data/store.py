"""Decoded tiles that are too many for memory: in files of the cache folder, mapped into memory, and read where they are asked for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from marsls_keras.data.refs import TileRef
from marsls_keras.errors import RunError
from marsls_keras.files import read_json, write_json

LARGE = 1 << 30
"""Bytes of images beyond which `data.cache` auto keeps tiles on disk; training holds about four times as much in memory."""

_FORM = 1
"""To be raised when the files of an entry, or what tiles are decoded to, change."""

_TYPES = {"images": np.float32, "masks": np.uint8, "valid": bool}
_CHUNK = 1 << 26


class Stored:
    """Tiles in a mapped file, (N, H, W, C); those that are asked for are copied into memory, and no others.

    Args:
        array: The file's tiles, (M, H, W, C).
        index: int (N,), which of them these are, in order; all by default.

    Attributes:
        shape: (N, H, W, C).
        dtype: Type of the values.
    """

    def __init__(self, array: np.ndarray, index: np.ndarray | None = None) -> None:
        self._array = array
        self._index = np.arange(len(array)) if index is None else index
        self.shape = (len(self._index), *array.shape[1:])
        self.dtype = array.dtype

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, which: Any) -> np.ndarray:
        """Return a tile (H, W, C) by its position, or (n, H, W, C) by a slice or by n positions."""
        return np.array(self._array[self._index[which]])

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(f"{len(self)} tiles on disk are not to be read at once.")

    def select(self, which: np.ndarray) -> Stored:
        """Return the tiles at n positions, still on disk."""
        return Stored(self._array, self._index[which])

    def pixels(self, tile: np.ndarray, pixel: np.ndarray) -> np.ndarray:
        """Return n pixels (n, C), by the positions of their tiles and, row by row, in them."""
        number, height, width, bands = self._array.shape
        return self._array.reshape(number, height * width, bands)[self._index[tile], pixel]


Images = np.ndarray | Stored
"""Images of tiles, (N, H, W, C), in memory or on disk."""


def select(images: Images, which: np.ndarray) -> Images:
    """Return the images at these positions: a copy of those in memory; of those on disk, none."""
    return images.select(which) if isinstance(images, Stored) else images[which]


def chunks(images: Images, multiple: int = 1) -> Iterator[slice]:
    """Yield slices of up to 64 MiB of images that cover all of them; all but the last are multiples of so many tiles."""
    tile = int(np.prod(images.shape[1:])) * images.dtype.itemsize
    step = max(_CHUNK // tile // multiple, 1) * multiple
    for first in range(0, len(images), step):
        yield slice(first, min(first + step, len(images)))


def take_pixels(images: Images, positions: np.ndarray) -> np.ndarray:
    """Return the pixels (n, C) at n positions in the row of all pixels of all images."""
    _, height, width, bands = images.shape
    if isinstance(images, Stored):
        return images.pixels(*np.divmod(positions, height * width))
    return images.reshape(-1, bands)[positions]


class Pile:
    """Where decoded tiles are put one after another: arrays, or the files of a folder.

    Args:
        number: How many there are at most.
        shape: Their shape, (H, W, C).
        folder: Where the files are made; None for arrays.
    """

    def __init__(self, number: int, shape: tuple[int, ...], folder: Path | None) -> None:
        self.number, self._shape, self._stack = 0, shape, ExitStack()
        self._files, self._arrays = {}, {}
        if folder is None:
            self._arrays = {name: np.empty((number, *part), _TYPES[name]) for name, part in _shapes(shape).items()}
        else:
            # Written, not mapped: on a full disk writing fails, but a mapped page kills the process.
            self._files = {name: self._stack.enter_context(open(folder / f"{name}.bin", "wb")) for name in _TYPES}

    def __enter__(self) -> Pile:
        return self

    def __exit__(self, *_: Any) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self._stack.close()

    def add(self, **parts: np.ndarray) -> None:
        """Add a tile: images float32 (H, W, C), masks uint8 (H, W) and valid bool (H, W)."""
        for name, part in parts.items():
            if self._files:
                self._files[name].write(np.ascontiguousarray(part, _TYPES[name]).data)
            else:
                self._arrays[name][self.number] = part
        self.number += 1

    def arrays(self) -> dict[str, Any]:
        """Return the arrays, cut to the tiles that were added."""
        return {name: array[: self.number] for name, array in self._arrays.items()}


def _shapes(shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    return {"images": tuple(shape), "masks": tuple(shape[:2]), "valid": tuple(shape[:2])}


def cache_folder() -> Path:
    """Return the folder of decoded tiles: MARSLS_CACHE, or marsls in the user's cache folder."""
    own = os.environ.get("MARSLS_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marsls"


def cached(
    refs: Sequence[TileRef], settings: Sequence[Any], make: Callable[[Path], dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what was decoded of these tiles with these settings, from the cache folder, where it is made if it is not there yet.

    An entry is found by the names, sizes and modification times of its files, and is there whole or not at all. A process that needs one
    that another is making waits for it. A new entry takes the place of that of the same folder, splits and settings before it changed.

    Args:
        refs: The tiles.
        settings: What else decides on the result.
        make: Fills a folder through a `Pile`, and returns facts as JSON, with the tiles' shape (N, H, W, C) as "shape".

    Returns:
        The facts, and "images" on disk (`Stored`), "masks" and "valid", which take a small part of the room, in memory.

    Raises:
        RunError: If the folder cannot be written, or the disk is full.
    """
    files = [str(path.absolute()) for ref in refs for path in (ref.image, ref.mask) if path is not None]
    place = [os.path.commonpath(files), sorted({ref.split for ref in refs}), list(settings), _FORM]
    stats = [(ref.id, ref.raster, ref.landslide, ref.release) for ref in refs], [(file, *_stat(file)) for file in files]
    root, scope = cache_folder(), _digest(place)
    path, unfinished = root / f"{scope}-{_digest([place, stats])}", root / f".{scope}.unfinished"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{scope}.lock"):
            if not _whole(path):
                shutil.rmtree(unfinished, ignore_errors=True)
                try:
                    unfinished.mkdir()
                    write_json(unfinished / "facts.json", make(unfinished))
                    for earlier in root.glob(f"{scope}-*"):
                        shutil.rmtree(earlier, ignore_errors=True)
                    os.rename(unfinished, path)
                finally:
                    shutil.rmtree(unfinished, ignore_errors=True)
            facts = read_json(path / "facts.json")
            number, *shape = facts["shape"]
            if not number:
                return facts, Pile(0, tuple(shape), None).arrays()
            parts = {name: (number, *part) for name, part in _shapes(shape).items()}
            images = Stored(np.memmap(path / "images.bin", np.float32, "r", shape=parts["images"]))
            rest = {name: np.fromfile(path / f"{name}.bin", _TYPES[name]).reshape(parts[name]) for name in ("masks", "valid")}
            return facts, {"images": images, **rest}
    except OSError as error:
        reason = error.strerror or error
        raise RunError(
            f"Could not keep decoded tiles in {root}: {reason}. Free some space, name another folder with MARSLS_CACHE, or set "
            "data.cache=memory."
        ) from error


def _stat(file: str) -> tuple[int, int]:
    """Return size and modification time, or zeros if the file is gone (reading it will say so)."""
    try:
        found = os.stat(file)
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:24]


def _whole(path: Path) -> bool:
    """Return whether an entry is there with all its bytes."""
    if not (path / "facts.json").is_file():
        return False
    number, *shape = read_json(path / "facts.json")["shape"]
    sizes = {name: number * int(np.prod(part)) * np.dtype(_TYPES[name]).itemsize for name, part in _shapes(shape).items()}
    return all((path / f"{name}.bin").is_file() and (path / f"{name}.bin").stat().st_size == size for name, size in sizes.items())
