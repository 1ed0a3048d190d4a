"""Reading all tiles of a dataset once, and finding everything that is wrong with them at once."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from marsls_keras.data.bands import RELEASES
from marsls_keras.data.dataset import Dataset
from marsls_keras.data.refs import Problem, TileRef
from marsls_keras.data.tile import Tile, read_mask, read_tile, resample
from marsls_keras.errors import InputError, listing


@dataclass(frozen=True)
class Tiles:
    """Decoded tiles.

    Attributes:
        refs: The tiles, N of them.
        images: float32 (N, H, W, C), canonical bands, not normalised.
        masks: uint8 (N, H, W) of {0, 1}; zeros for unlabelled tiles.
        valid: bool (N, H, W), False where a band was no-data and has been filled.
        hashes: SHA-256 of each tile's canonical pixels, the same for two files of equal content.
        geo: GeoTIFF tags of each tile.
        release: Their release.
    """

    refs: tuple[TileRef, ...]
    images: np.ndarray
    masks: np.ndarray
    valid: np.ndarray
    hashes: tuple[str, ...]
    geo: tuple[tuple, ...]
    release: str

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the C bands."""
        return RELEASES[self.release].bands

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.refs)

    def subset(self, chosen: Sequence[int] | np.ndarray) -> Tiles:
        """Return the tiles at the given positions."""
        index = np.asarray(chosen, dtype=int)

        def pick(values: tuple) -> tuple:
            return tuple(values[i] for i in index)

        return Tiles(
            pick(self.refs), self.images[index], self.masks[index], self.valid[index], pick(self.hashes), pick(self.geo), self.release
        )


def examine(refs: Sequence[TileRef], release: str = "auto", resize: int | None = None) -> tuple[Tiles | None, list[Problem]]:
    """Decode tiles and report all that is wrong with them.

    Args:
        refs: The tiles to read.
        release: Name of a release, or "auto" to detect it per tile; tiles of several releases are a problem.
        resize: Height and width to bring all tiles to, bands bilinear and masks by the nearest pixel; None to take them as they are.

    Returns:
        The tiles that could be read (None if there is none), and the problems.
    """
    problems: list[Problem] = []
    read = deque(_read(refs, release, resize, problems))
    if not read:
        return None, problems
    shape = Counter(tile.image.shape for _, tile, _ in read).most_common(1)[0][0]
    images = np.empty((len(read), *shape), np.float32)
    masks, valid = np.zeros(images.shape[:3], np.uint8), np.empty(images.shape[:3], bool)
    kept: list[TileRef] = []
    geo, hashes, by_release = [], [], defaultdict(list)
    while read:
        ref, tile, mask = read.popleft()  # each is let go where it is copied
        if trouble := _wrong_shape(ref, tile, mask, shape):
            problems.append(trouble)
            continue
        position = len(kept)
        images[position], valid[position] = tile.image, tile.valid
        if mask is not None:
            masks[position] = mask
        kept.append(ref)
        geo.append(tile.geo)
        hashes.append(hashlib.sha256(tile.image.tobytes()).hexdigest())
        by_release[tile.release].append(ref.image)
        problems += _suspicious(ref, tile, mask)
    if not kept:
        return None, problems
    if len(by_release) > 1:
        found = "; ".join(f"{len(paths)} of {name} (such as {paths[0]})" for name, paths in sorted(by_release.items()))
        problems.append(Problem("mixed releases", f"The tiles are of several releases: {found}. Keep one release to a folder"))
    main = max(by_release, key=lambda name: len(by_release[name]))
    number = len(kept)
    tiles = Tiles(tuple(kept), images[:number], masks[:number], valid[:number], tuple(hashes), tuple(geo), main)
    return tiles, problems + _duplicates(tiles)


def _read(
    refs: Sequence[TileRef], release: str, resize: int | None, problems: list[Problem]
) -> Iterator[tuple[TileRef, Tile, np.ndarray | None]]:
    """Yield what can be read, tile after tile; what cannot is added to the problems."""
    for ref in refs:
        try:
            tile = read_tile(ref.image, ref.release if release == "auto" else release)
        except InputError as error:
            problems.append(Problem("unreadable image", str(error)))
            continue
        mask = None
        if ref.mask is not None:
            try:
                mask = read_mask(ref.mask)
            except InputError as error:
                problems.append(Problem("unreadable mask", str(error)))
                continue
        if resize is not None:
            if trouble := _wrong_mask(ref, tile, mask):
                problems.append(trouble)
                continue
            image, valid = resample(tile.image, resize, resize, order=1), resample(tile.valid, resize, resize, order=0)
            tile = replace(tile, image=image, valid=valid)
            mask = None if mask is None else resample(mask, resize, resize, order=0)
        yield ref, tile, mask


def _wrong_shape(ref: TileRef, tile: Tile, mask: np.ndarray | None, shape: tuple[int, ...]) -> Problem | None:
    """Report a tile that differs in size or bands from the others, or from its mask."""
    height, width, bands = tile.image.shape
    if bands != shape[2]:
        return Problem("wrong shape", f"{ref.image}: {bands} bands, expected {shape[2]} as the others have")
    if (height, width) != shape[:2]:
        expected = f"{shape[0]} x {shape[1]} as the others have"
        return Problem("wrong shape", f"{ref.image}: {height} x {width} pixels, expected {expected}; data.resize brings all to one size")
    return _wrong_mask(ref, tile, mask)


def _wrong_mask(ref: TileRef, tile: Tile, mask: np.ndarray | None) -> Problem | None:
    height, width, _ = tile.image.shape
    if mask is None or mask.shape == (height, width):
        return None
    return Problem("wrong shape", f"{ref.mask}: {mask.shape[0]} x {mask.shape[1]} pixels, its image has {height} x {width}")


def load(dataset: Dataset, release: str = "auto", resize: int | None = None) -> Tiles:
    """Decode all tiles of a dataset.

    Raises:
        InputError: If any tile or mask has an error; all are listed.
    """
    tiles, problems = examine(dataset.tiles, release, resize)
    errors = [problem.message for problem in (*dataset.problems, *problems) if problem.severity == "error"]
    if errors or tiles is None:
        raise InputError(f"{dataset.root} has {len(errors)} problem(s):{listing(errors)}\nmarsls check lists all of them.")
    return tiles


def require_same_family(trained: str, found: str, what: str) -> None:
    """Refuse tiles whose values mean something else than those a run was trained on.

    Raises:
        InputError: If the releases are of different families.
    """
    if RELEASES[trained].family != RELEASES[found].family:
        raise InputError(
            f"{what} holds tiles of {found}, but the run was trained on {trained}, whose bands have other scales. "
            f"Train on tiles of {found}'s kind, or say what the tiles are with --release."
        )


def _duplicates(tiles: Tiles) -> list[Problem]:
    """Report tiles of equal content; between a labelled split and test they make every score a lie."""
    same = defaultdict(list)
    for ref, digest in zip(tiles.refs, tiles.hashes, strict=True):
        same[digest].append(ref)
    problems = []
    for refs in same.values():
        if len(refs) > 1:
            splits = sorted({ref.split for ref in refs})
            kind = "overlap" if len(splits) > 1 else "duplicate"
            where = f"the same tile is in {' and '.join(splits)}" if len(splits) > 1 else f"the same tile is in {splits[0]} more than once"
            problems.append(Problem(kind, f"{where}: {', '.join(str(ref.image) for ref in refs)}"))
    return problems


def _suspicious(ref: TileRef, tile: Tile, mask: np.ndarray | None) -> list[Problem]:
    """Report a mask that contradicts its folder, and warn of what is legal but worth a look: constant bands, filled pixels, empty masks."""
    problems = []
    if ref.landslide is False and mask is not None and mask.any():
        what = f"{ref.mask}: {int(mask.sum())} pixels of landslide in the mask of a tile that is filed as having none"
        problems.append(Problem("contradictory mask", what))
    if ref.landslide and mask is not None and not mask.any():
        problems.append(Problem("empty mask", f"{ref.mask}: no landslide in the mask of a tile that is filed as having one", "warning"))
    flat = np.ptp(tile.image, axis=(0, 1)) == 0  # (C,)
    if flat.any():
        names = ", ".join(band for band, constant in zip(RELEASES[tile.release].bands, flat, strict=True) if constant)
        problems.append(Problem("constant band", f"{ref.image}: {names} has one value everywhere", "warning"))
    if filled := int((~tile.valid).sum()):
        problems.append(Problem("no-data", f"{ref.image}: {filled} pixels without data in some band, filled from the nearest", "warning"))
    return problems
