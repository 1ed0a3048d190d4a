"""Divide the labelled tiles into cross-validation folds that keep neighbouring tiles together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

import numpy as np
from pydantic import model_validator

from marsls_keras.config import Data
from marsls_keras.data.decoded.leaks import Trace, groups
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.datasets import RELEASES
from marsls_keras.errors import InputError
from marsls_keras.json_records import Digest, Name, Positive, Record

FULL: Final = "full"
"""Name of the fold that trains on all tiles of the pool and holds out none."""

Fold = int | Literal["full"]
"""Index of a fold, or `FULL`."""

_RATIO_BINS = 5


@dataclass(frozen=True)
class Splits:
    """Assignment of tiles to folds, stored as splits.json in a run.

    Attributes:
        cv: "blocks", "geographic", "areas", "holdout" or "official".
        folds: Number of folds.
        tiles: For each tile of the pool: id, content hash, block, and the fold that holds it out (-1: none, it is
            always used for training).
        contents: For each tile, its content digest in any orientation (`marsls_keras.data.decoded.leaks`); empty in
            runs of versions that did not store it.

    Example:
        >>> splits = make_splits(tiles, Data(), seed=0)  # doctest: +SKIP
        >>> len(splits.held_out(0))  # doctest: +SKIP
        106
    """

    cv: str
    folds: int
    tiles: tuple[dict[str, Any], ...]
    contents: tuple[str, ...] = field(default=(), compare=False)

    def held_out(self, fold: Fold) -> set[str]:
        """Return the ids of the tiles that the fold holds out."""
        return {tile["id"] for tile in self.tiles if tile["fold"] == fold}

    def training_hashes(self, fold: Fold) -> set[str]:
        """Return the content hashes of the tiles that the fold trains on."""
        return {tile["sha256"] for tile in self.tiles if tile["fold"] != fold}

    def trained_on(self, fold: Fold, tiles: Tiles) -> np.ndarray:
        """Return which tiles the fold trains on, bool (N,), recognised by content in any orientation, not by name."""
        hashes = self.training_hashes(fold)
        contents = {known for tile, known in zip(self.tiles, self.contents, strict=False) if tile["fold"] != fold} - {
            ""
        }
        seen = np.array([digest in hashes for digest in tiles.hashes], bool)
        return seen | np.array([known.content in contents for known in tiles.traces], bool) if tiles.traces else seen

    def require_fold(self, fold: Fold) -> None:
        """Raise an error if a fold does not exist.

        Raises:
            InputError: If the fold is out of range.
        """
        if fold != FULL and not 0 <= fold < self.folds:
            raise InputError(f"There is no fold {fold}: with cv {self.cv} the folds are 0 to {self.folds - 1}.")

    def to_json(self) -> dict[str, Any]:
        """Return the content of splits.json."""
        return {"cv": self.cv, "folds": self.folds, "tiles": list(self.tiles), "contents": list(self.contents)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Splits:
        """Create splits from the content of splits.json."""
        return cls(value["cv"], value["folds"], tuple(value["tiles"]), tuple(value.get("contents", ())))


class _Tile(Record):
    """Entry of a tile in splits.json."""

    id: Name
    sha256: Digest
    block: Name
    fold: int


class SplitsRecord(Record):
    """Schema of splits.json; see `Splits`.

    Example:
        >>> read_record(Path("runs/default/splits.json"), SplitsRecord)["cv"]  # doctest: +SKIP
        'blocks'
    """

    cv: Literal["blocks", "geographic", "areas", "holdout", "official"]
    folds: Positive
    tiles: list[_Tile]
    contents: list[str] = []

    remedy: ClassVar[str] = (
        "Restore the file from a copy, or train another run: what each fold was trained on cannot be told without it."
    )

    @model_validator(mode="after")
    def _possible(self) -> SplitsRecord:
        if beyond := [tile.id for tile in self.tiles if not -1 <= tile.fold < self.folds]:
            raise ValueError(f"tile {beyond[0]} should be held out by one of the {self.folds} folds, or by none (-1)")
        if len({tile.id for tile in self.tiles}) < len(self.tiles):
            raise ValueError("a tile is there twice")
        if self.contents and len(self.contents) != len(self.tiles):
            raise ValueError(f"contents should be of the {len(self.tiles)} tiles, found {len(self.contents)}")
        return self


def require_held_out(folds: Sequence[Fold] | None) -> None:
    """Raise an error if `FULL` is among the folds, since it has no out-of-fold predictions.

    Raises:
        InputError: If `FULL` is among the folds.

    Example:
        >>> require_held_out([0, 1])
    """
    if FULL in (folds or ()):
        raise InputError(
            "Fold full was trained on all labelled tiles, so it has no out-of-fold predictions "
            "and nothing can be measured or decided on them. "
            "Leave --folds out, or give numbers; marsls predict and submit take --folds full."
        )


def require_fold(fold: Fold, config: Data) -> None:
    """Raise an error if a fold cannot exist with this configuration.

    Raises:
        InputError: If the fold is out of range.

    Example:
        >>> require_fold(4, Data(folds=5))
    """
    Splits(config.cv, config.folds if config.cv in ("blocks", "geographic", "areas") else 1, ()).require_fold(fold)


def make_splits(tiles: Tiles, config: Data, seed: int) -> Splits:
    """Divide the labelled tiles of the pool into folds.

    The folds follow data.cv:

    - blocks: stratified group k-fold. Block_size x block_size grid cells form a group; strata are quantile bins of the
      foreground ratio.
    - geographic: the groups of blocks, ordered along the raster's longer side, are cut into contiguous regions with
      about equal numbers of tiles.
    - areas: whole connected areas are held out in turn.
    - holdout: one fold, which holds out the share data.holdout of the groups of blocks, drawn at random and stratified
      by foreground ratio (no landslide, and quantile bins of the others).
    - official: one fold, which trains on train and holds out val.

    Tiles without a grid cell are a group each. Copies of a tile in any orientation, and tiles that overlap on the map,
    are always in one group, since the blocks they are in are merged.

    Args:
        tiles: Decoded tiles; those of splits outside the pool are ignored.
        config: The section `data` of the configuration.
        seed: Random seed.

    Raises:
        InputError: If the pool is empty or lacks masks, there are fewer groups than folds, positions are needed but
            unknown, or train and val of an official split share ground.

    Example:
        >>> make_splits(tiles, Data(cv="holdout", holdout=0.3), seed=0).folds  # doctest: +SKIP
        1
    """
    wanted = ("train", "val") if config.cv == "official" else config.pool
    missing = [name for name in wanted if not any(ref.split == name for ref in tiles.refs)]
    if missing == list(wanted) or (missing and config.cv == "official"):
        raise InputError(f"The data has no tile in the split {' or '.join(missing)}, which cv {config.cv} needs.")
    chosen = [i for i, ref in enumerate(tiles.refs) if ref.split in wanted]
    unlabelled = [str(tiles.refs[i].image) for i in chosen if not tiles.refs[i].labelled]
    if unlabelled:
        raise InputError(
            f"{len(unlabelled)} tiles of the pool have no mask, such as {unlabelled[0]}. "
            "Leave their split out of data.pool."
        )
    refs = [tiles.refs[i] for i in chosen]
    if config.cv in ("geographic", "areas") and not RELEASES[tiles.release].layout.grid:
        raise InputError(
            f"data.cv {config.cv} needs to know where tiles lie; {tiles.release} does not tell. Use blocks or holdout."
        )
    pool = tiles.subset(chosen) if len(chosen) < len(tiles) else tiles
    blocks = blocks_of(pool.refs, pool.traces, config.block_size)
    ratio = tiles.masks[chosen].mean(axis=(1, 2))
    if config.cv == "official":
        _require_apart(pool)
        folds, number = np.array([0 if ref.split == "val" else -1 for ref in refs]), 1
    elif config.cv == "holdout":
        folds, number = _held_out(ratio, blocks, config.holdout, seed), 1
    elif config.cv == "areas":
        folds = _areas(refs, blocks, config.folds)
        number = int(folds.max()) + 1
    else:
        number = len(set(blocks))
        if number < config.folds:
            joined = len({block_of(ref, config.block_size) for ref in refs}) - number
            why = (
                f" {joined} blocks are of others, whose tiles overlap theirs on the map or are copies."
                if joined
                else ""
            )
            raise InputError(
                f"{len(refs)} tiles in {number} block(s) cannot be divided into {config.folds} folds.{why} "
                "Lower data.folds or block_size."
            )
        if config.cv == "blocks":
            folds = _block_folds(ratio, blocks, config.folds, seed)
        else:
            folds = _regions(refs, blocks, config.folds, config.block_size)
        number = config.folds
    return Splits(
        config.cv,
        number,
        tuple(
            {"id": ref.id, "sha256": tiles.hashes[i], "block": block, "fold": int(fold)}
            for i, ref, block, fold in zip(chosen, refs, blocks, folds, strict=True)
        ),
        tuple(known.content for known in pool.traces),
    )


def _areas(refs: list[TileRef], blocks: list[str], folds: int) -> np.ndarray:
    """Assign whole connected areas to folds: int (N,), the fold of each tile.

    An area consists of tiles linked by adjacency, diagonals included, or by a common block. If there are more areas
    than folds, areas are assigned from the largest on, each to the fold with the fewest tiles so far.

    Raises:
        InputError: If a tile has no grid cell, or all tiles are one area.
    """
    if any(ref.cell is None for ref in refs):
        raise InputError(
            "data.cv areas needs to know where tiles lie, and some names do not tell. Use blocks or holdout."
        )
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    rasters = {name: i for i, name in enumerate(dict.fromkeys(ref.raster for ref in refs))}
    # Rasters are 2 apart along a third axis, so that cells of different rasters are never adjacent.
    cells = np.array([(ref.cell[0], ref.cell[1], 2 * rasters[ref.raster]) for ref in refs if ref.cell is not None])
    near = KDTree(cells).query_pairs(1, p=np.inf, output_type="ndarray")
    first = {block: i for i, block in reversed(list(enumerate(blocks)))}
    pairs = np.concatenate([near, [(first[block], i) for i, block in enumerate(blocks)]])
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(refs), len(refs)))
    number, area = connected_components(links, directed=False)
    if number < 2:
        raise InputError(
            f"data.cv areas: all {len(refs)} tiles are one connected area. Use geographic, which cuts it into regions."
        )
    sizes, held = np.bincount(area), np.zeros(min(folds, number), int)
    fold_of = np.zeros(number, int)
    for largest in np.argsort(-sizes, kind="stable"):
        fold_of[largest] = int(np.argmin(held))
        held[fold_of[largest]] += sizes[largest]
    return fold_of[area]


def block_of(ref: TileRef, size: int) -> str:
    """Return the block of a tile; a tile without a grid cell is a block of its own.

    Example:
        >>> from pathlib import Path
        >>> block_of(TileRef("train/a", Path("a.tif"), None, "train", "base", (3, 5)), 2)
        'base/1/2'
    """
    return ref.id if ref.cell is None else f"{ref.raster}/{ref.cell[0] // size}/{ref.cell[1] // size}"


def blocks_of(refs: Sequence[TileRef], traces: Sequence[Trace], size: int) -> list[str]:
    """Return the block of each tile; blocks that share copies of a tile or overlapping tiles are merged.

    Example:
        >>> blocks_of(tiles.refs, tiles.traces, 2)[0]  # doctest: +SKIP
        'base/3/0'
    """
    return groups(traces, [block_of(ref, size) for ref in refs])


def _require_apart(pool: Tiles) -> None:
    """Raise an error if tiles of val show ground of train.

    Raises:
        InputError: If a tile of val is a copy of one of train in any orientation, or overlaps one on the map.
    """
    ids = groups(pool.traces, [ref.id for ref in pool.refs])
    train = {known: ref for known, ref in zip(ids, pool.refs, strict=True) if ref.split == "train"}
    shared = [
        (train[known].image, ref.image)
        for known, ref in zip(ids, pool.refs, strict=True)
        if ref.split == "val" and known in train
    ]
    if shared:
        raise InputError(
            f"data.cv official: {len(shared)} tile(s) of val are copies of tiles of train or share ground with them, "
            f"such as {shared[0][1]} (with {shared[0][0]}, or by way of others), so a score on val says nothing. "
            "Take data.cv blocks, which keeps such tiles in one fold, or take them out of one split."
        )


def _block_folds(ratio: np.ndarray, blocks: list[str], folds: int, seed: int) -> np.ndarray:
    """Assign blocks to folds, stratified by foreground ratio: int (N,), the fold of each tile."""
    # Imported here because it takes a second.
    from sklearn.model_selection import StratifiedGroupKFold

    # At most so many bins that each fold can have a tile of each.
    edges = np.quantile(ratio, np.linspace(0, 1, min(_RATIO_BINS, len(ratio) // folds) + 1)[1:-1])
    bins = np.digitize(ratio, edges)
    assigned = np.empty(len(blocks), int)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Ties in the ratio can make bins smaller than the number of folds; these are spread as far as possible.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for fold, (_, held_out) in enumerate(splitter.split(np.zeros((len(blocks), 1)), bins, blocks)):
            assigned[held_out] = fold
    return assigned


def _held_out(ratio: np.ndarray, blocks: list[str], share: float, seed: int) -> np.ndarray:
    """Draw a stratified random share of the blocks: int (N,), 0 for held-out tiles and -1 for the others."""
    from sklearn.model_selection import StratifiedShuffleSplit

    names, member = np.unique(blocks, return_inverse=True)
    mean = np.bincount(member, ratio) / np.bincount(member)
    least = min(round(share * len(names)), len(names) - round(share * len(names)))
    if least < 1:
        raise InputError(
            f"data.holdout {share:g} of {len(names)} block(s) leaves none to train on or none to hold out."
        )
    strata = np.zeros(len(names), int)
    for bins in range(_RATIO_BINS, 0, -1):  # the largest number with which each bin can be on both sides
        edges = np.quantile(mean[mean > 0], np.linspace(0, 1, bins + 1)[1:-1]) if mean.any() else np.empty(0)
        tried = np.where(mean > 0, 1 + np.digitize(mean, edges), 0)
        _, numbers = np.unique(tried, return_counts=True)
        if numbers.min() > 1 and len(numbers) <= least:
            strata = tried
            break
    splitter = StratifiedShuffleSplit(1, test_size=round(share * len(names)), random_state=seed)
    _, held_out = next(splitter.split(strata[:, None], strata))
    return np.where(np.isin(member, held_out), 0, -1)


def _regions(refs: list[TileRef], blocks: list[str], folds: int, size: int) -> np.ndarray:
    """Cut the blocks into contiguous regions along the grid's longer side: int (N,), the region of each tile."""
    cells = np.array([ref.cell if ref.cell is not None else (0, i) for i, ref in enumerate(refs)])
    longer = int(np.argmax(np.ptp(cells, axis=0)))
    members = {block: [i for i, name in enumerate(blocks) if name == block] for block in dict.fromkeys(blocks)}
    # Blocks ordered by raster, then along the longer side, then across it.
    order = sorted(
        members, key=lambda b: (refs[members[b][0]].raster, *(cells[members[b][0]] // size)[[longer, 1 - longer]])
    )
    region: dict[str, int] = {}
    before, last = 0, -1
    for i, block in enumerate(order):
        share = int((before + len(members[block]) / 2) / len(refs) * folds)
        # No region is skipped, and enough blocks are left for the regions that follow.
        last = region[block] = min(max(share, folds - len(order) + i), last + 1)
        before += len(members[block])
    return np.array([region[block] for block in blocks])
