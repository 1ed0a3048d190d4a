"""Reading all tiles of a dataset once, and finding everything that is wrong with them at once."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marsls_keras.data.bands import RELEASES
from marsls_keras.data.dataset import Dataset, Problem, TileRef
from marsls_keras.data.tiff import read_mask, read_tile
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


def examine(refs: Sequence[TileRef], release: str = "auto") -> tuple[Tiles | None, list[Problem]]:
    """Decode tiles and report all that is wrong with them.

    Args:
        refs: The tiles to read.
        release: Name of a release, or "auto" to detect it per tile; tiles of several releases are a problem.

    Returns:
        The tiles that could be read (None if there is none), and the problems.
    """
    problems: list[Problem] = []
    read = []
    for ref in refs:
        try:
            tile = read_tile(ref.image, release)
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
        read.append((ref, tile, mask))
    if not read:
        return None, problems
    shape = Counter(tile.image.shape for _, tile, _ in read).most_common(1)[0][0]
    kept = []
    for ref, tile, mask in read:
        height, width, _ = tile.image.shape
        if tile.image.shape != shape:
            problems.append(
                Problem("wrong shape", f"{ref.image}: {height} x {width} pixels, expected {shape[0]} x {shape[1]} as the others have")
            )
        elif mask is not None and mask.shape != (height, width):
            problems.append(
                Problem("wrong shape", f"{ref.mask}: {mask.shape[0]} x {mask.shape[1]} pixels, its image has {height} x {width}")
            )
        else:
            kept.append((ref, tile, mask))
    if not kept:
        return None, problems
    by_release = defaultdict(list)
    for ref, tile, _ in kept:
        by_release[tile.release].append(ref.image)
    if len(by_release) > 1:
        found = "; ".join(f"{len(paths)} of {name} (such as {paths[0]})" for name, paths in sorted(by_release.items()))
        problems.append(Problem("mixed releases", f"The tiles are of several releases: {found}. Keep one release to a folder"))
    images = np.stack([tile.image for _, tile, _ in kept])
    tiles = Tiles(
        refs=tuple(ref for ref, _, _ in kept),
        images=images,
        masks=np.stack([np.zeros(shape[:2], np.uint8) if mask is None else mask for *_, mask in kept]),
        valid=np.stack([tile.valid for _, tile, _ in kept]),
        hashes=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in images),
        geo=tuple(tile.geo for _, tile, _ in kept),
        release=max(by_release, key=lambda name: len(by_release[name])),
    )
    return tiles, problems + _duplicates(tiles) + _suspicious(tiles)


def load(dataset: Dataset, release: str = "auto") -> Tiles:
    """Decode all tiles of a dataset.

    Raises:
        InputError: If any tile or mask has an error; all are listed.
    """
    tiles, problems = examine(dataset.tiles, release)
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


def _suspicious(tiles: Tiles) -> list[Problem]:
    """Warn of what is legal but worth a look: constant bands, filled pixels."""
    problems = []
    flat = np.ptp(tiles.images, axis=(1, 2)) == 0  # (N, C)
    filled = (~tiles.valid).sum((1, 2))
    for i, ref in enumerate(tiles.refs):
        if flat[i].any():
            names = ", ".join(band for band, constant in zip(tiles.bands, flat[i], strict=True) if constant)
            problems.append(Problem("constant band", f"{ref.image}: {names} has one value everywhere", "warning"))
        if filled[i]:
            problems.append(
                Problem("no-data", f"{ref.image}: {filled[i]} pixels without data in some band, filled from the nearest", "warning")
            )
    return problems
