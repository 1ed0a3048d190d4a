"""Decode all tiles of a dataset in one pass and report all problems together."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from marsls_keras.data.decoded.checks import misplaced_mask, suspicious, wrong_mask, wrong_shape
from marsls_keras.data.decoded.disk_cache import LARGE, TileWriter, cached
from marsls_keras.data.decoded.leaks import Trace, leaks, trace
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.formats.tile import Tile, read_mask, read_shape, read_tile, resample
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.index.tile_ref import Problem, TileRef
from marsls_keras.datasets import RELEASES, releases_of
from marsls_keras.errors import InputError, listing
from marsls_keras.progress import tracked


def examine(
    refs: Sequence[TileRef], release: str = "auto", resize: int | None = None, cache: str = "auto"
) -> tuple[Tiles | None, list[Problem]]:
    """Decode tiles and return them with a list of all problems found.

    Args:
        refs: The tiles to read.
        release: Name of a release, or "auto" to detect it for each tile. A tile whose values do not identify a release,
            such as one without data, gets the release of most other tiles. Tiles of several releases are a problem.
        resize: Height and width to resize all tiles to, bilinear for bands and nearest neighbour for masks; None to
            leave them as they are.
        cache: Where to keep the decoded images: "memory", "disk" (see
            `marsls_keras.data.decoded.disk_cache.cached`), or "auto" for disk if they take more than `LARGE` bytes.

    Returns:
        The tiles that could be read (None if there are none), and the problems.

    Raises:
        RunError: If decoded tiles cannot be kept on disk.

    Example:
        >>> tiles, problems = examine(Dataset.open("data", strict=False).tiles)  # doctest: +SKIP
        >>> [problem.message for problem in problems if problem.severity == "error"]  # doctest: +SKIP
        []
    """
    if cache == "disk" or (cache == "auto" and _expected_bytes(refs, release, resize) > LARGE):
        facts, arrays = cached(refs, (release, resize), lambda folder: _decode(refs, release, resize, folder)[0])
    else:
        facts, arrays = _decode(refs, release, resize, None)
    problems = [Problem(*fields) for fields in facts["problems"]]
    if not facts["kept"]:
        return None, problems
    kept = tuple(refs[i] for i in facts["kept"])
    traces = tuple(Trace(*fields) for fields in _tuples(facts["traces"]))
    problems += leaks(kept, facts["hashes"], traces)
    tiles = Tiles(
        kept,
        **arrays,
        hashes=tuple(facts["hashes"]),
        geo=_tuples(facts["geo"]),
        release=facts["release"],
        traces=traces,
    )
    return tiles, problems


def _tuples(value: Any) -> Any:
    """Convert nested lists, as JSON has them, to tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _expected_bytes(refs: Sequence[TileRef], release: str, resize: int | None) -> int:
    """Return the bytes that the decoded images take if all are as large as the first readable one."""
    shape = next(_shapes(refs, release, resize), (0,))
    return len(refs) * math.prod(shape) * np.dtype(np.float32).itemsize


def _shapes(refs: Sequence[TileRef], release: str, resize: int | None) -> Iterator[tuple[int, ...]]:
    """Yield (H, W, C) of each tile whose header can be read."""
    for ref in refs:
        try:
            height, width, bands = read_shape(ref.image, ref.release if release == "auto" else release)
        except InputError:
            continue
        yield (height, width, bands) if resize is None else (resize, resize, bands)


def _decode(
    refs: Sequence[TileRef], release: str, resize: int | None, folder: Path | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Decode tiles; return facts about them that can be written as JSON, and their arrays.

    With a folder, the images are written to files in it instead of memory.
    """
    problems: list[Problem] = []
    facts: dict[str, Any] = {"shape": (0, 0, 0, 0), "kept": [], "hashes": [], "geo": [], "traces": [], "release": ""}
    # The most frequent shape must be known before the first tile is stored: keeping all tiles until then would take
    # twice the memory.
    sizes = Counter(_shapes(refs, release, resize))
    shape = sizes.most_common(1)[0][0] if sizes else (0, 0, 0)
    by_release = defaultdict(list)
    pile = TileWriter(len(refs), shape, folder)
    for i, tile, mask, known in _read(refs, release, resize, problems):
        if trouble := wrong_shape(refs[i], tile, mask, shape):
            problems.append(trouble)
            continue
        pile.add(tile.image, np.zeros(shape[:2], np.uint8) if mask is None else mask, tile.valid)
        facts["kept"].append(i)
        facts["geo"].append(tile.geo)
        facts["traces"].append(known)
        facts["hashes"].append(hashlib.sha256(tile.image.tobytes()).hexdigest())
        by_release[tile.release].append(refs[i].image)
        problems += suspicious(refs[i], tile, mask)
    if len(by_release) > 1:
        found = "; ".join(f"{len(paths)} of {name} (such as {paths[0]})" for name, paths in sorted(by_release.items()))
        problems.append(
            Problem("mixed releases", f"The tiles are of several releases: {found}. Keep one release to a folder")
        )
    facts["shape"] = (pile.number, *shape)
    facts["release"] = max(by_release, key=lambda name: len(by_release[name]), default="")
    facts["problems"] = [(problem.kind, problem.message, problem.severity) for problem in problems]
    return facts, pile.arrays()


def _read(
    refs: Sequence[TileRef], release: str, resize: int | None, problems: list[Problem]
) -> Iterator[tuple[int, Tile, np.ndarray | None, Trace]]:
    """Yield position, tile, mask and trace of each readable tile; add the others to the problems."""
    most: str | None = None
    for i, ref in enumerate(tracked("Reading tiles", refs)):
        try:
            tile = read_tile(ref.image, ref.release if release == "auto" else release)
            if release == ref.release == "auto":
                _require_of_folder(ref, tile)
                if not _telling(tile):
                    most = most or _release_of_most(refs) or tile.release
                    tile = read_tile(ref.image, most)
        except InputError as error:
            problems.append(Problem("unreadable image", str(error)))
            continue
        mask = None
        if ref.mask is not None:
            try:
                mask = read_mask(ref.mask)
                for more in ref.more_masks:  # masks of the same image
                    mask = np.maximum(mask, read_mask(more))
            except InputError as error:
                problems.append(Problem("unreadable mask", str(error)))
                continue
        problems += misplaced_mask(ref, tile, mask)
        known = trace(tile.image, tile.valid, tile.geo)
        if resize is not None:
            if trouble := wrong_mask(ref, tile, mask):
                problems.append(trouble)
                continue
            image, valid = resample(tile.image, resize, resize, order=1), resample(tile.valid, resize, resize, order=0)
            tile = replace(tile, image=image, valid=valid)
            mask = None if mask is None else resample(mask, resize, resize, order=0)
        yield i, tile, mask, known


def _require_of_folder(ref: TileRef, tile: Tile) -> None:
    """Raise an error if a tile's release does not use the layout of the folder it is in.

    Raises:
        InputError: If several releases share the folder's layout, but the tile's release has a layout of its own.
    """
    layout = RELEASES[tile.release].layout
    if ref.split != "images" and len(releases_of(layout)) == 1:
        found, bits = RELEASES[tile.release], " of 8 bits" if RELEASES[tile.release].eight_bits else ""
        others = ", ".join(name for name, release in RELEASES.items() if len(releases_of(release.layout)) > 1)
        raise InputError(
            f"{ref.image}: {len(found.bands)} bands{bits}, as {found.title} has them, in folders of {others}. "
            f"If it is of {found.title}, or is to be read like that, say so with --release {found.name}."
        )


def _telling(tile: Tile) -> bool:
    """Return whether a tile's values identify its release."""
    return RELEASES[tile.release].certain(tile.image)


def _release_of_most(refs: Sequence[TileRef]) -> str | None:
    """Return the most frequent release among tiles whose values identify it; None if there are none."""
    found: Counter[str] = Counter()
    for ref in refs:
        try:
            tile = read_tile(ref.image)
        except InputError:  # reported when the tile itself is read
            continue
        if _telling(tile):
            found[tile.release] += 1
    return found.most_common(1)[0][0] if found else None


def load(dataset: Dataset, release: str = "auto", resize: int | None = None, cache: str = "memory") -> Tiles:
    """Decode all tiles of a dataset; args as in `examine`.

    Raises:
        InputError: If any tile or mask has an error; all are listed.
        RunError: If decoded tiles cannot be kept on disk.

    Example:
        >>> load(Dataset.open("data")).images.shape  # doctest: +SKIP
        (664, 128, 128, 7)
    """
    tiles, problems = examine(dataset.tiles, release, resize, cache)
    errors = [problem.message for problem in (*dataset.problems, *problems) if problem.severity == "error"]
    if errors or tiles is None:
        raise InputError(
            f"{dataset.root} has {len(errors)} problem(s):{listing(errors)}\nmarsls check lists all of them."
        )
    return tiles
