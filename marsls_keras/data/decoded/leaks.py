"""Tiles that show the same ground whatever their names say: copies in any orientation, and tiles that overlap on the map."""

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
"""Pixels by which neighbours may overlap, since places are rounded."""


class Trace(NamedTuple):
    """By what a tile is known again.

    Attributes:
        content: Digest of its valid pixels, the same for each of the eight turns and mirrorings; "" if all its pixels
            are alike.
        crs: Digest of its coordinate system, "" if its place on the map is not known.
        box: The rectangle that it covers on the map, (left, bottom, right, top) in map units.
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
        image: float32 (H, W, C), as it is read, not resampled.
        valid: bool (H, W); what is not valid was filled, which hangs on the orientation, and does not count.
        tags: GeoTIFF tags.

    Example:
        >>> image, valid = np.arange(16, dtype=np.float32).reshape(4, 4, 1), np.ones((4, 4), bool)
        >>> trace(image, valid) == trace(np.rot90(image), valid)
        True
    """
    place = georeference(tags)
    if (
        not place.crs or place.affine is None
    ):  # without a coordinate system, places of different files have nothing in common
        return Trace(content(image, valid))
    crs = hashlib.sha256(repr(place.crs).encode()).hexdigest()[:16]
    return Trace(content(image, valid), crs, place.box(*image.shape[:2]), place.pixel())


def content(image: np.ndarray, valid: np.ndarray) -> str:
    """Return the `content` of a trace.

    Each pixel's bands become one number first, so that eight orientations take little; the one that sorts first is
    digested.

    Example:
        >>> content(np.zeros((4, 4, 1), np.float32), np.ones((4, 4), bool))
        ''
    """
    bits = np.ascontiguousarray(image, "<f4").view("<u4")
    # Every band by a number of its own, modulo 2 ** 64, so that bands do not make up for one another.
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
    """Return the block of each tile, blocks that copies or overlapping tiles join becoming one, named as the first of them.

    Args:
        traces: Traces of N tiles; none if nothing is known of them.
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
    """Return the positions of tiles that are the same in some orientation, those of each group together.

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
    """Yield the pairs of positions (i < k) of tiles that share ground on the map, by more than a pixel both ways.

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
            end = int(np.searchsorted(left, right[n] - width[n]))  # from there on, all begin behind this one
            near = slice(n + 1, max(end, n + 1))
            across = np.minimum(right[near], right[n]) - left[near] > np.minimum(width[near], width[n])
            down = np.minimum(top[near], top[n]) - np.maximum(bottom[near], bottom[n]) > np.minimum(
                height[near], height[n]
            )
            for k in index[near][across & down].tolist():
                yield min(i, k), max(i, k)


def misplaced(traces: Sequence[Trace]) -> int:
    """Return how many tiles claim one and the same place, if most do: their georeferencing is that of the picture they were cut from.

    Example:
        >>> misplaced([])
        0
    """
    places = Counter((known.crs, known.box) for known in traces if known.crs)
    number = places.most_common(1)[0][1] if places else 0
    return number if number > 2 and 2 * number > places.total() else 0


def leaks(refs: Sequence[TileRef], hashes: Sequence[str], traces: Sequence[Trace]) -> list[Problem]:
    """Report tiles that show the same ground; between labelled tiles and test they make every score a lie.

    Copies of equal orientation are errors, and so are all copies in test. Folds keep other copies, and tiles that
    overlap, together.

    Args:
        refs: The tiles.
        hashes: Digests of their pixels as they are.
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
            what = f"the same tile, turned or mirrored, is in {' and '.join(sorted({ref.split for ref in found}))}: {_named(found)}"
            problems.append(Problem("overlap", what))
    if kept := [found for found in turned if len({ref.split == "test" for ref in found}) == 1]:
        what = f"{len(kept)} tile(s) are there several times, turned or mirrored, such as {_named(kept[0])}; folds keep copies together"
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
    """Report tiles of equal pixels."""
    splits = sorted({ref.split for ref in refs})
    where = (
        f"the same tile is in {' and '.join(splits)}"
        if len(splits) > 1
        else f"the same tile is in {splits[0]} more than once"
    )
    return Problem("overlap" if len(splits) > 1 else "duplicate", f"{where}: {_named(refs)}")


def _named(refs: Sequence[TileRef]) -> str:
    return ", ".join(str(ref.image) for ref in refs)
