"""Resolve tiles that are published twice: the same image in the same grid cell, with masks that may differ."""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from marsls_keras.data.formats.tile import read_mask, read_tile
from marsls_keras.data.index.tile_ref import Problem, TileRef
from marsls_keras.errors import InputError


def same_image(one: Path, other: Path) -> bool:
    """Return whether two files hold the same image; False if one is damaged or empty.

    Example:
        >>> same_image(Path("nowhere/a.tif"), Path("nowhere/b.tif"))
        False
    """
    try:
        if filecmp.cmp(one, other, shallow=False):
            return one.stat().st_size > 0
        first, second = read_tile(one), read_tile(other)
    except (InputError, OSError):
        return False
    return np.array_equal(first.image, second.image) and np.array_equal(first.valid, second.valid)


def settle(tiles: Sequence[TileRef], conflicts: str = "error") -> tuple[list[TileRef], list[Problem]]:
    """Resolve copies of a tile in one grid cell whose masks differ; return the remaining tiles and the problems.

    A landslide inventory covers only its own partition of the raster. Where two partitions hold the same tile, each
    mask shows only the landslides of its own partition, and the complete labels are their union.

    Args:
        tiles: The tiles, ordered by split.
        conflicts: "error" reports such copies as a problem. "union" keeps only the first one, with the landslides of
            all masks. "ignore" removes all copies from train and val, so that they influence neither training nor
            decisions; a copy in test is kept unchanged.

    Example:
        >>> tile = TileRef("train/a", Path("a.tif"), None, "train", "base", (3, 4))
        >>> settle([tile]) == ([tile], [])
        True
    """
    claims = defaultdict(list)
    for ref in tiles:
        if ref.cell is not None:
            claims[ref.raster, ref.cell].append(ref)
    problems: list[Problem] = []
    instead: dict[str, TileRef | None] = {}
    for (_, cell), refs in claims.items():
        if len(refs) == 1:
            continue
        where = f"the same grid cell (row {cell[0]}, column {cell[1]})"
        first, *others = refs
        if not all(same_image(first.image, ref.image) for ref in others):
            problems.append(Problem("duplicate", f"{' and '.join(str(ref.image) for ref in refs)} claim {where}"))
            continue
        masked = [ref for ref in refs if ref.mask is not None]
        if not (differs := differing(masked)):
            continue  # copies with equal masks are found later by their content, also in other cells
        if conflicts == "ignore":
            instead |= {ref.id: None for ref in refs if ref.split != "test"}
            continue
        kept, *left_out = masked
        instead |= {ref.id: None for ref in refs if ref is not kept}
        if conflicts == "union":
            instead[kept.id] = replace(kept, more_masks=tuple(ref.mask for ref in left_out if ref.mask is not None))
        else:
            problems.append(Problem("conflict", f"{differs}, in {where}: {_WAY_ON.format(split=kept.split)}"))
    settled = [instead.get(ref.id, ref) for ref in tiles]
    return [ref for ref in settled if ref is not None], problems


_WAY_ON = (
    "choose with data.conflicts: union keeps the tile in {split} alone, with the landslides of both masks, "
    "and ignore trains on no copy, but leaves one in test as it is"
)


def differing(refs: Sequence[TileRef]) -> str:
    """Describe which masks of one image differ and by how much; "" if none does, or if they cannot be read.

    Example:
        >>> differing([TileRef("train/a", Path("a.tif"), None, "train", "base", (3, 4))])
        ''
    """
    try:
        refs = [ref for ref in refs if ref.mask is not None]
        masks = [read_mask(ref.mask) for ref in refs if ref.mask is not None]
    except InputError:
        return ""
    if any(mask.shape != masks[0].shape for mask in masks):
        return ""
    for ref, mask in zip(refs[1:], masks[1:], strict=True):
        if not np.array_equal(mask, masks[0]):
            common = int(np.count_nonzero((mask == 1) & (masks[0] == 1)))
            numbers = (
                f"{np.count_nonzero(masks[0] == 1)} and {np.count_nonzero(mask == 1)} pixels of landslide, "
                f"{common} in common"
            )
            return f"{refs[0].mask} and {ref.mask} are different masks ({numbers}) of the same image"
    return ""
