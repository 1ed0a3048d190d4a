"""Reading all tiles of a dataset once, and finding everything that is wrong with them at once."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from marsls_keras.bands.releases import RELEASES, RGB
from marsls_keras.data.decoded.disk_cache import LARGE, Images, Pile, cached, select
from marsls_keras.data.decoded.leaks import Trace, leaks, trace
from marsls_keras.data.formats.georeference import difference, file_tags, georeference
from marsls_keras.data.formats.pam import unread_place
from marsls_keras.data.formats.tile import Tile, read_mask, read_shape, read_tile, resample
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.index.tile_ref import Problem, TileRef
from marsls_keras.errors import InputError, listing
from marsls_keras.progress import tracked


@dataclass(frozen=True)
class Tiles:
    """Decoded tiles.

    Attributes:
        refs: The tiles, N of them.
        images: float32 (N, H, W, C), canonical bands, not normalised; in memory, or on disk if they are many.
        masks: uint8 (N, H, W) of {0, 1}; zeros for unlabelled tiles.
        valid: bool (N, H, W), False where a band was no-data and has been filled.
        hashes: SHA-256 of each tile's canonical pixels, the same for two files of equal content.
        geo: GeoTIFF tags of each tile.
        release: Their release.
        derived: Names of the bands that were computed, which follow those of the release.
        traces: By what each tile is known again (`marsls_keras.data.decoded.leaks`).
    """

    refs: tuple[TileRef, ...]
    images: Images
    masks: np.ndarray
    valid: np.ndarray
    hashes: tuple[str, ...]
    geo: tuple[tuple, ...]
    release: str
    derived: tuple[str, ...] = ()
    traces: tuple[Trace, ...] = ()

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the C bands."""
        return (*RELEASES[self.release].bands, *self.derived)

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.refs)

    def subset(self, chosen: Sequence[int] | np.ndarray) -> Tiles:
        """Return the tiles at the given positions; of images on disk no copy is made."""
        index = np.asarray(chosen, dtype=int)

        def pick(values: tuple) -> tuple:
            return tuple(values[i] for i in index)

        return Tiles(
            pick(self.refs),
            select(self.images, index),
            self.masks[index],
            self.valid[index],
            pick(self.hashes),
            pick(self.geo),
            self.release,
            self.derived,
            pick(self.traces) if self.traces else (),
        )


def examine(
    refs: Sequence[TileRef], release: str = "auto", resize: int | None = None, cache: str = "auto"
) -> tuple[Tiles | None, list[Problem]]:
    """Decode tiles and report all that is wrong with them.

    Args:
        refs: The tiles to read.
        release: Name of a release, or "auto" to detect it: each tile tells, but one whose values tell too little, as without any data,
            follows most of the others; tiles of several releases are a problem.
        resize: Height and width to bring all tiles to, bands bilinear and masks by the nearest pixel; None to take them as they are.
        cache: Where the decoded images are: "memory", "disk" (see `marsls_keras.data.decoded.disk_cache.cached`), or "auto"
            for disk if they are many.

    Returns:
        The tiles that could be read (None if there is none), and the problems.

    Raises:
        RunError: If decoded tiles cannot be kept on disk.
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
    tiles = Tiles(kept, **arrays, hashes=tuple(facts["hashes"]), geo=_tuples(facts["geo"]), release=facts["release"], traces=traces)
    return tiles, problems


def _tuples(value: Any) -> Any:
    """Return a value with tuples where JSON has lists."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _expected_bytes(refs: Sequence[TileRef], release: str, resize: int | None) -> int:
    """Return how much room the decoded images take, if all are as the first one that can be read."""
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


def _decode(refs: Sequence[TileRef], release: str, resize: int | None, folder: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what there is to know of the tiles, as JSON, and their arrays; with a folder, they are in its files instead."""
    problems: list[Problem] = []
    facts: dict[str, Any] = {"shape": (0, 0, 0, 0), "kept": [], "hashes": [], "geo": [], "traces": [], "release": ""}
    # What most tiles have is to be known before the first is put away: to keep all of them until then would take their room twice.
    sizes = Counter(_shapes(refs, release, resize))
    shape = sizes.most_common(1)[0][0] if sizes else (0, 0, 0)
    by_release = defaultdict(list)
    pile = Pile(len(refs), shape, folder)
    for i, tile, mask, known in _read(refs, release, resize, problems):
        if trouble := _wrong_shape(refs[i], tile, mask, shape):
            problems.append(trouble)
            continue
        pile.add(tile.image, np.zeros(shape[:2], np.uint8) if mask is None else mask, tile.valid)
        facts["kept"].append(i)
        facts["geo"].append(tile.geo)
        facts["traces"].append(known)
        facts["hashes"].append(hashlib.sha256(tile.image.tobytes()).hexdigest())
        by_release[tile.release].append(refs[i].image)
        problems += _suspicious(refs[i], tile, mask)
    if len(by_release) > 1:
        found = "; ".join(f"{len(paths)} of {name} (such as {paths[0]})" for name, paths in sorted(by_release.items()))
        problems.append(Problem("mixed releases", f"The tiles are of several releases: {found}. Keep one release to a folder"))
    facts["shape"] = (pile.number, *shape)
    facts["release"] = max(by_release, key=lambda name: len(by_release[name]), default="")
    facts["problems"] = [(problem.kind, problem.message, problem.severity) for problem in problems]
    return facts, pile.arrays()


def _read(
    refs: Sequence[TileRef], release: str, resize: int | None, problems: list[Problem]
) -> Iterator[tuple[int, Tile, np.ndarray | None, Trace]]:
    """Yield position, tile, mask and trace of what can be read; what cannot is added to the problems."""
    most: str | None = None
    for i, ref in enumerate(tracked("Reading tiles", refs)):
        try:
            tile = read_tile(ref.image, ref.release if release == "auto" else release)
            if release == ref.release == "auto":
                _require_seven(ref, tile)
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
                for more in ref.more_masks:  # of the same image
                    mask = np.maximum(mask, read_mask(more))
            except InputError as error:
                problems.append(Problem("unreadable mask", str(error)))
                continue
        problems += _misplaced(ref, tile, mask)
        known = trace(tile.image, tile.valid, tile.geo)
        if resize is not None:
            if trouble := _wrong_mask(ref, tile, mask):
                problems.append(trouble)
                continue
            image, valid = resample(tile.image, resize, resize, order=1), resample(tile.valid, resize, resize, order=0)
            tile = replace(tile, image=image, valid=valid)
            mask = None if mask is None else resample(mask, resize, resize, order=0)
        yield i, tile, mask, known


def _require_seven(ref: TileRef, tile: Tile) -> None:
    """Refuse three bands in folders of Mars tiles, which may be pictures of Mars as well as Nepal's."""
    if ref.split != "images" and RELEASES[tile.release].bands == RGB:
        raise InputError(
            f"{ref.image}: three bands of 8 bits, expected the seven of a Mars release. If these are pictures of Nepal, or are to be read "
            "like those, say so with --release nepal."
        )


def _telling(tile: Tile) -> bool:
    """Return whether a tile's values tell its release: mmls_v2 is also what is left where some band has no data, or only zeros."""
    return tile.release != "mmls_v2" or bool(tile.image.any(axis=(0, 1)).all())


def _release_of_most(refs: Sequence[TileRef]) -> str | None:
    """Return the release of most of those tiles that tell it; None if none does."""
    found: Counter[str] = Counter()
    for ref in refs:
        try:
            tile = read_tile(ref.image)
        except InputError:  # told where it is read
            continue
        if _telling(tile):
            found[tile.release] += 1
    return found.most_common(1)[0][0] if found else None


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


def load(dataset: Dataset, release: str = "auto", resize: int | None = None, cache: str = "memory") -> Tiles:
    """Decode all tiles of a dataset; args as in `examine`.

    Raises:
        InputError: If any tile or mask has an error; all are listed.
        RunError: If decoded tiles cannot be kept on disk.
    """
    tiles, problems = examine(dataset.tiles, release, resize, cache)
    errors = [problem.message for problem in (*dataset.problems, *problems) if problem.severity == "error"]
    if errors or tiles is None:
        raise InputError(f"{dataset.root} has {len(errors)} problem(s):{listing(errors)}\nmarsls check lists all of them.")
    return tiles


def without_data(tiles: Tiles, tile: int) -> bool:
    """Return whether a tile has no data in any band: nothing is valid, and every band was filled with 0."""
    stored = len(RELEASES[tiles.release].bands)
    return not tiles.valid[tile].any() and not tiles.images[tile][..., :stored].any()


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


def barren(tiles: Tiles) -> list[Problem]:
    """Warn of labelled tiles of which none holds landslide: nothing can be learnt, and often the masks were written wrongly."""
    labelled = [i for i, ref in enumerate(tiles.refs) if ref.labelled]
    if not labelled or tiles.masks[labelled].any():
        return []
    what = f"none of the {len(labelled)} labelled tiles holds any landslide, such as {tiles.refs[labelled[0]].image}. Are the masks right?"
    return [Problem("no landslide", what, "warning")]


def _misplaced(ref: TileRef, tile: Tile, mask: np.ndarray | None) -> list[Problem]:
    """Report a mask that lies elsewhere than its image, and georeferencing that cannot be used."""
    problems = []
    place = georeference(tile.geo)
    if place.control:
        what = f"{ref.image}: placed by {place.control}, which results keep; which tiles overlap, or --mosaic, cannot be told from them"
        problems.append(Problem("georeference", what, "warning"))
    for path in (ref.image, ref.mask, *ref.more_masks):
        if path is not None and (aux := unread_place(path)) is not None:
            problems.append(Problem("georeference", f"{aux}: georeferencing in such files is not read; write it into the TIFF", "warning"))
    for path in (ref.mask, *ref.more_masks):
        if path is None or mask is None or not tile.geo:
            continue
        try:
            differs = difference(georeference(file_tags(path)), place, mask.shape, tile.image.shape[:2])
        except InputError as error:
            differs = [str(error)]
        if differs:
            what = f"{path} does not lie where its image {ref.image.name} does: {'; '.join(differs)}"
            problems.append(Problem("georeference", f"{what}. Write both on one grid of pixels"))
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
