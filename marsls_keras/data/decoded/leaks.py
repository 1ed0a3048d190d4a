"""Find tiles that show the same ground: copies in any orientation, and tiles that overlap on the map."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from marsls_keras.data.formats.georeference import Tags, georeference
from marsls_keras.data.index.tile_ref import Problem, TileRef

_EDGE = 1.0
"""Overlap in pixels that is tolerated between neighbours, since coordinates are rounded."""


class Trace(NamedTuple):
    """Properties by which copies and overlaps of a tile are recognised.

    Attributes:
        content: Digest of its valid pixels, the same for all eight rotations and reflections; "" if all pixels are
            equal.
        crs: Digest of its coordinate system; "" if its position on the map is unknown.
        box: Its bounding box on the map, (left, bottom, right, top) in map units.
        pixel: Width and height of a pixel in map units.

    Example:
        >>> Trace("")
        Trace(content='', crs='', box=(0, 0, 0, 0), pixel=(0, 0))
    """

    content: str
    crs: str = ""
    box: tuple[float, float, float, float] = (0, 0, 0, 0)
    pixel: tuple[float, float] = (0, 0)


def trace(image: np.ndarray, valid: np.ndarray, tags: Tags = ()) -> Trace:
    """Return the trace of a tile.

    Args:
        image: float32 (H, W, C), as read, not resampled.
        valid: bool (H, W); invalid pixels were filled, which depends on the orientation, so they are ignored.
        tags: GeoTIFF tags.

    Example:
        >>> image, valid = np.arange(16, dtype=np.float32).reshape(4, 4, 1), np.ones((4, 4), bool)
        >>> trace(image, valid) == trace(np.rot90(image), valid)
        True
    """
    place = georeference(tags)
    # Without a coordinate system, positions in different files cannot be compared.
    if not place.crs or place.affine is None:
        return Trace(content(image, valid))
    crs = hashlib.sha256(repr(place.crs).encode()).hexdigest()[:16]
    return Trace(content(image, valid), crs, place.box(*image.shape[:2]), place.pixel())


def content(image: np.ndarray, valid: np.ndarray) -> str:
    """Return a digest of a tile's valid pixels that does not depend on orientation; "" if all pixels are equal.

    Each pixel's bands are reduced to one integer first, so that eight orientations are cheap; the one that sorts first
    is hashed.

    Example:
        >>> content(np.zeros((4, 4, 1), np.float32), np.ones((4, 4), bool))
        ''
    """
    bits = np.ascontiguousarray(image, "<f4").view("<u4")
    # Each band is multiplied by a different odd number modulo 2 ** 64, so that exchanged bands change the sum.
    pixels = np.zeros(image.shape[:2], np.uint64)
    for band in range(bits.shape[2]):
        pixels += bits[..., band] * np.uint64(pow(0x9E3779B97F4A7C15, band + 1, 1 << 64))
    pixels[~valid] = 0
    if pixels.size == 0 or (pixels == pixels[0, 0]).all():
        return ""
    turned = (np.rot90(side, turns) for side in (pixels, pixels[:, ::-1]) for turns in range(4))
    first = min((one.tobytes(), one.shape) for one in turned)
    return hashlib.sha256(repr(first[1]).encode() + first[0]).hexdigest()[:32]


def groups(traces: Sequence[Trace], blocks: Sequence[str]) -> list[str]:
    """Return the block of each tile after merging blocks that share copies or overlapping tiles.

    A merged block has the name of the first of its blocks.

    Args:
        traces: Traces of N tiles; empty if they are unknown.
        blocks: Names of their blocks.

    Example:
        >>> groups([Trace("a"), Trace("b"), Trace("a")], ["1", "2", "3"])
        ['1', '2', '1']
    """
    pairs = [(same[0], other) for same in copies(traces) for other in same[1:]] + list(overlaps(traces))
    if not pairs:
        return list(blocks)
    names = list(dict.fromkeys(blocks))
    number = {name: i for i, name in enumerate(names)}
    first, second = np.array([(number[blocks[i]], number[blocks[k]]) for i, k in pairs]).T
    _, label = connected_components(
        coo_array((np.ones(len(first)), (first, second)), shape=(len(names),) * 2), directed=False
    )
    heads: dict[int, str] = {}
    for name, part in zip(names, label.tolist(), strict=True):
        heads.setdefault(part, name)
    return [heads[int(label[number[block]])] for block in blocks]


def copies(traces: Sequence[Trace]) -> list[list[int]]:
    """Return groups of positions of tiles that are copies of one another, in any orientation.

    Example:
        >>> copies([Trace("a"), Trace("b"), Trace("a")])
        [[0, 2]]
    """
    same = defaultdict(list)
    for i, known in enumerate(traces):
        if known.content:
            same[known.content].append(i)
    return [found for found in same.values() if len(found) > 1]


def overlaps(traces: Sequence[Trace]) -> Iterator[tuple[int, int]]:
    """Yield pairs of positions (i < k) of tiles that overlap on the map by more than a pixel along both axes.

    Example:
        >>> boxes = [(0.0, 0.0, 10.0, 10.0), (5.0, 5.0, 15.0, 15.0), (10.0, 0.0, 20.0, 10.0)]
        >>> list(overlaps([Trace("", "crs", box, (1.0, 1.0)) for box in boxes]))
        [(0, 1), (1, 2)]
    """
    if misplaced(traces):
        return
    for crs in dict.fromkeys(known.crs for known in traces if known.crs):
        index = np.array([i for i, known in enumerate(traces) if known.crs == crs])
        index = index[np.argsort([traces[i].box[0] for i in index], kind="stable")]
        left, bottom, right, top = np.array([traces[i].box for i in index]).T
        width, height = np.array([traces[i].pixel for i in index]).T * _EDGE
        for n, i in enumerate(index[:-1].tolist()):
            # Tiles from `end` on begin beyond the right edge of this one.
            end = int(np.searchsorted(left, right[n] - width[n]))
            near = slice(n + 1, max(end, n + 1))
            across = np.minimum(right[near], right[n]) - left[near] > np.minimum(width[near], width[n])
            down = np.minimum(top[near], top[n]) - np.maximum(bottom[near], bottom[n]) > np.minimum(
                height[near], height[n]
            )
            for k in index[near][across & down].tolist():
                yield min(i, k), max(i, k)


def misplaced(traces: Sequence[Trace]) -> int:
    """Return the number of tiles with identical position on the map if these are the majority, else 0.

    Their georeferencing is then that of the raster they were cut from.

    Example:
        >>> misplaced([])
        0
    """
    places = Counter((known.crs, known.box) for known in traces if known.crs)
    number = places.most_common(1)[0][1] if places else 0
    return number if number > 2 and 2 * number > places.total() else 0


def leaks(refs: Sequence[TileRef], hashes: Sequence[str], traces: Sequence[Trace]) -> list[Problem]:
    """Return problems of tiles that show the same ground; between labelled and test tiles they invalidate every score.

    Copies of equal orientation are errors, and so are copies of labelled tiles in test. Other copies and overlapping
    tiles are warnings: folds keep them together.

    Args:
        refs: The tiles.
        hashes: Digests of their pixels, which depend on the orientation.
        traces: Their traces.

    Example:
        >>> leaks([], [], [])
        []
    """
    problems: list[Problem] = []
    turned: list[list[TileRef]] = []
    for same in copies(traces):
        equal = defaultdict(list)
        for i in same:
            equal[hashes[i]].append(refs[i])
        problems += [_equal(found) for found in equal.values() if len(found) > 1]
        if len(equal) > 1:
            turned.append([found[0] for found in equal.values()])
    for found in turned:
        if len({ref.split == "test" for ref in found}) > 1:
            what = (
                f"the same tile, turned or mirrored, is in {' and '.join(sorted({ref.split for ref in found}))}: "
                f"{_named(found)}"
            )
            problems.append(Problem("overlap", what))
    if kept := [found for found in turned if len({ref.split == "test" for ref in found}) == 1]:
        what = (
            f"{len(kept)} tile(s) are there several times, turned or mirrored, such as {_named(kept[0])}; "
            "folds keep copies together"
        )
        problems.append(Problem("copies", what, "warning"))
    if number := misplaced(traces):
        what = (
            f"{number} of {len(refs)} tiles claim one and the same place on the map, so it is not known which overlap"
        )
        problems.append(Problem("georeference", what, "warning"))
    for across in (True, False):
        pairs = [
            (refs[i], refs[k])
            for i, k in overlaps(traces)
            if ((refs[i].split == "test") != (refs[k].split == "test")) == across
        ]
        if pairs:
            first = " and ".join(str(ref.image) for ref in pairs[0])
            end = "scores on test are not those of new ground" if across else "folds keep tiles that overlap together"
            where = "of a labelled and a test tile " if across else "of tiles "
            problems.append(
                Problem(
                    "shared ground",
                    f"{len(pairs)} pair(s) {where}overlap on the map, such as {first}; {end}",
                    "warning",
                )
            )
    return problems


def _equal(refs: Sequence[TileRef]) -> Problem:
    """Return the problem of tiles with equal pixels."""
    splits = sorted({ref.split for ref in refs})
    where = (
        f"the same tile is in {' and '.join(splits)}"
        if len(splits) > 1
        else f"the same tile is in {splits[0]} more than once"
    )
    return Problem("overlap" if len(splits) > 1 else "duplicate", f"{where}: {_named(refs)}")


def _named(refs: Sequence[TileRef]) -> str:
    return ", ".join(str(ref.image) for ref in refs)
