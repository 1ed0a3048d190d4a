"""Folds: each tile is held out once, blocks stay whole, folds are balanced (or contiguous), seeds reproduce them."""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from marsls_keras.config import Data
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.index.dataset import TileRef
from marsls_keras.data.splits import Splits, make_splits, require_fold
from marsls_keras.errors import InputError

Cell = tuple[int, int]


def make_tiles(
    cells: list[Cell | None], ratios: np.ndarray, splits: list[str] | None = None, labelled: bool = True
) -> Tiles:
    """Return tiles of 16 x 16 pixels with the given cells and, to 1/256, foreground ratios."""
    names = splits or ["train"] * len(cells)
    refs = [
        TileRef(f"{split}/{i}", Path(f"{i}.tif"), Path(f"{i}.tif") if labelled else None, split, "base", cell)
        for i, (cell, split) in enumerate(zip(cells, names, strict=True))
    ]
    masks = (np.arange(256) < np.asarray(ratios)[:, None] * 256).reshape(-1, 16, 16).astype(np.uint8)
    n = len(cells)
    hashes = tuple(f"hash {i}" for i in range(n))
    return Tiles(
        tuple(refs),
        np.zeros((n, 16, 16, 7), np.float32),
        masks,
        np.ones((n, 16, 16), bool),
        hashes,
        ((),) * n,
        "mmls_v2",
    )


def grid(rows: int, columns: int, share: float = 1, seed: int = 0) -> tuple[list[Cell], np.ndarray]:
    """Return the cells of a grid with gaps, and foreground ratios that vary smoothly over it, as real ones do."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((rows, columns)), 1)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    cells = [(r, c) for r in range(rows) for c in range(columns) if rng.random() < share]
    return cells, np.array([smooth[cell] for cell in cells])


def fold_of(splits: Splits) -> np.ndarray:
    return np.array([tile["fold"] for tile in splits.tiles])


# Properties of every kind of cross-validation


def test_areas_are_held_out_whole() -> None:
    """Three areas of 6 (linked across a corner), 4 and 2 tiles; the reference is scipy's labelling of the cells."""
    picture = np.zeros((12, 14), bool)
    for cell in [(0, 0), (0, 1), (1, 2), (2, 2), (2, 3), (3, 4), (0, 8), (1, 8), (0, 9), (1, 9), (8, 0), (9, 0)]:
        picture[cell] = True
    cells = [(int(r), int(c)) for r, c in np.argwhere(picture)]
    area = np.array([ndimage.label(picture, np.ones((3, 3)))[0][cell] for cell in cells])
    tiles = make_tiles(cells, np.linspace(0.1, 0.9, len(cells)))
    three = make_splits(tiles, Data(cv="areas"), seed=0)
    assert three.folds == 3
    assert {frozenset(np.flatnonzero(fold_of(three) == k)) for k in range(3)} == {
        frozenset(np.flatnonzero(area == k)) for k in (1, 2, 3)
    }
    two = make_splits(tiles, Data(cv="areas", folds=2), seed=0)  # the two smaller areas together
    assert two.folds == 2 and sorted(np.bincount(fold_of(two))) == [6, 6]
    assert all(len(set(fold_of(two)[area == k])) == 1 for k in (1, 2, 3))


def test_areas_of_two_rasters_do_not_touch() -> None:
    tiles = make_tiles([(0, 0), (0, 1), (0, 0), (0, 1)], np.full(4, 0.5))
    refs = tuple(replace(ref, raster="other") if i > 1 else ref for i, ref in enumerate(tiles.refs))
    assert fold_of(make_splits(replace(tiles, refs=refs), Data(cv="areas", block_size=1), seed=0)).tolist() == [
        0,
        0,
        1,
        1,
    ]


def test_one_area_and_tiles_without_a_place_are_refused() -> None:
    cells, ratios = grid(4, 4)
    with pytest.raises(InputError, match="all 16 tiles are one connected area. Use geographic"):
        make_splits(make_tiles(cells, ratios), Data(cv="areas"), seed=0)
    with pytest.raises(InputError, match="some names do not tell"):
        make_splits(make_tiles([*cells[1:], None], ratios), Data(cv="areas"), seed=0)


@pytest.mark.parametrize("cv", ["blocks", "geographic"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_tile_once_and_blocks_whole(cv: str, size: int) -> None:
    cells, ratios = grid(14, 11, share=0.7)
    tiles = make_tiles(cells, ratios)
    splits = make_splits(tiles, Data(cv=cv, block_size=size), seed=3)
    assert (splits.cv, splits.folds) == (cv, 5)
    assert [tile["id"] for tile in splits.tiles] == [ref.id for ref in tiles.refs]
    assert [tile["sha256"] for tile in splits.tiles] == list(tiles.hashes)
    assert set(fold_of(splits)) == set(range(5))
    together = defaultdict(set)
    for (row, column), fold in zip(cells, fold_of(splits), strict=True):
        together[row // size, column // size].add(fold)
    assert all(len(folds) == 1 for folds in together.values())
    held_out = [splits.held_out(fold) for fold in range(5)]
    assert sum(map(len, held_out)) == len(cells) and set.union(*held_out) == {ref.id for ref in tiles.refs}
    for fold in range(5):
        left = {hashed for ref, hashed in zip(tiles.refs, tiles.hashes, strict=True) if ref.id not in held_out[fold]}
        assert splits.training_hashes(fold) == left


@pytest.mark.parametrize("cv", ["blocks", "geographic"])
def test_small_pools_are_divided_without_empty_folds_or_warnings(cv: str) -> None:
    rng = np.random.default_rng(0)
    divided = refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for trial in range(150):
            rows, columns = rng.integers(2, 9, 2)
            cells = [(r, c) for r in range(rows) for c in range(columns) if rng.random() < 0.6] or [(0, 0)]
            ratios = rng.random(len(cells)) ** 2 if trial % 3 else np.zeros(len(cells))
            folds = int(rng.integers(2, 6))
            blocks = {(r // 2, c // 2) for r, c in cells}
            if len(blocks) < folds:
                with pytest.raises(
                    InputError, match=rf"{len(cells)} tiles in {len(blocks)} block\(s\) cannot be divided into {folds}"
                ):
                    make_splits(make_tiles(cells, ratios), Data(cv=cv, folds=folds), trial)
                refused += 1
                continue
            splits = make_splits(make_tiles(cells, ratios), Data(cv=cv, folds=folds), trial)
            assert set(fold_of(splits)) == set(range(folds))
            divided += 1
    assert divided > 50 and refused > 10


@pytest.mark.parametrize("cv", ["blocks", "geographic"])
def test_tiles_without_a_cell_are_blocks_of_their_own(cv: str) -> None:
    tiles = make_tiles([None] * 23, np.linspace(0, 1, 23))
    splits = make_splits(tiles, Data(cv=cv), seed=0)
    assert len({tile["block"] for tile in splits.tiles}) == 23
    assert np.bincount(fold_of(splits), minlength=5).min() >= 4


def test_equal_cells_of_different_rasters_are_different_blocks() -> None:
    tiles = make_tiles([(0, 0), (0, 0), (4, 4), (4, 4)], np.zeros(4))
    refs = [
        TileRef(r.id, r.image, r.mask, r.split, "base" if i % 2 else "other", r.cell) for i, r in enumerate(tiles.refs)
    ]
    tiles = Tiles(tuple(refs), tiles.images, tiles.masks, tiles.valid, tiles.hashes, tiles.geo, tiles.release)
    assert len({tile["block"] for tile in make_splits(tiles, Data(folds=4), seed=0).tiles}) == 4


# Blocks


def test_folds_are_alike() -> None:
    cells, ratios = grid(20, 20, share=0.9)
    tiles = make_tiles(cells, ratios)
    folds = fold_of(make_splits(tiles, Data(), seed=0))
    fifths = np.searchsorted(np.quantile(ratios, [0.2, 0.4, 0.6, 0.8]), ratios)
    for fold in range(5):
        held_out = folds == fold
        assert 0.85 < held_out.mean() * 5 < 1.15
        assert abs(ratios[held_out].mean() - ratios.mean()) < 0.02
        shares = np.bincount(fifths[held_out], minlength=5) / held_out.sum()
        assert np.abs(shares - 0.2).max() < 0.06
    # The measure can fail: regions, which are not stratified, differ more.
    regions = fold_of(make_splits(tiles, Data(cv="geographic"), seed=0))
    assert max(abs(ratios[regions == fold].mean() - ratios.mean()) for fold in range(5)) > 0.03


def test_the_seed_decides() -> None:
    tiles = make_tiles(*grid(10, 10))
    assert make_splits(tiles, Data(), seed=1) == make_splits(tiles, Data(), seed=1)
    assert (fold_of(make_splits(tiles, Data(), seed=1)) != fold_of(make_splits(tiles, Data(), seed=2))).mean() > 0.3


# Regions


@pytest.mark.parametrize(("rows", "columns"), [(40, 9), (9, 40)])
@pytest.mark.parametrize("share", [1, 0.5])
def test_regions_are_contiguous_and_of_about_equal_size(rows: int, columns: int, share: float) -> None:
    cells, ratios = grid(rows, columns, share)
    folds = fold_of(make_splits(make_tiles(cells, ratios), Data(cv="geographic"), seed=0))
    along, across = (0, 1) if rows > columns else (1, 0)
    order = np.array(cells)
    assert np.abs(np.bincount(folds) / len(cells) - 0.2).max() < 4 / len(cells)
    blocks = order // 2
    for before in range(4):
        # A region may end within a line of blocks; the next one then starts in the same line.
        last = blocks[folds == before][:, along].max()
        first = blocks[folds == before + 1][:, along].min()
        assert first >= last
        if first == last:
            line = blocks[:, along] == last
            assert (
                blocks[line & (folds == before)][:, across].max()
                < blocks[line & (folds == before + 1)][:, across].min()
            )


def test_regions_do_not_depend_on_the_seed() -> None:
    tiles = make_tiles(*grid(12, 6))
    assert make_splits(tiles, Data(cv="geographic"), seed=1) == make_splits(tiles, Data(cv="geographic"), seed=2)


# Held-out share


@pytest.mark.parametrize("share", [0.2, 0.3])
def test_holdout_takes_its_share_of_every_kind_of_tile(share: float) -> None:
    ratios = np.concatenate([np.zeros(90), np.linspace(0.05, 0.95, 110)])
    tiles = make_tiles([None] * 200, np.random.default_rng(5).permutation(ratios))
    splits = make_splits(tiles, Data(cv="holdout", holdout=share), seed=1)
    assert (splits.cv, splits.folds) == ("holdout", 1)
    held_out = fold_of(splits) == 0
    assert set(fold_of(splits)) == {0, -1} and held_out.sum() == round(share * 200)
    found = tiles.masks.mean((1, 2))
    assert abs(held_out[found == 0].sum() - share * 90) <= 1
    for low in np.arange(0.05, 0.95, 0.18):  # the five bins of 22 tiles
        assert abs(held_out[(found > low) & (found < low + 0.18)].sum() - share * 22) <= 1.5
    assert make_splits(tiles, Data(cv="holdout", holdout=share), seed=1) == splits
    other = make_splits(tiles, Data(cv="holdout", holdout=share), seed=2)
    assert (fold_of(other) != fold_of(splits)).any()


def test_holdout_keeps_blocks_whole() -> None:
    cells, ratios = grid(14, 11, share=0.7)
    splits = make_splits(make_tiles(cells, ratios), Data(cv="holdout", holdout=0.25, block_size=2), seed=3)
    together = defaultdict(set)
    for (row, column), fold in zip(cells, fold_of(splits), strict=True):
        together[row // 2, column // 2].add(fold)
    assert all(len(folds) == 1 for folds in together.values())
    assert sum(folds == {0} for folds in together.values()) == round(0.25 * len(together))


@pytest.mark.parametrize("number", [2, 3, 7])
def test_holdout_of_a_few_tiles(number: int) -> None:
    for ratios in (np.zeros(number), np.linspace(0.1, 0.9, number), np.arange(number) % 2 / 2):
        splits = make_splits(make_tiles([None] * number, ratios), Data(cv="holdout", holdout=0.4), seed=0)
        assert (fold_of(splits) == 0).sum() == round(0.4 * number)
    with pytest.raises(InputError, match=r"data.holdout 0.05 of 7 block\(s\) leaves none"):
        make_splits(make_tiles([None] * 7, np.zeros(7)), Data(cv="holdout", holdout=0.05), seed=0)


def test_no_regions_where_places_are_unknown() -> None:
    tiles = replace(make_tiles([None] * 9, np.zeros(9)), release="bijie")
    assert make_splits(tiles, Data(folds=3), seed=0).folds == 3
    with pytest.raises(InputError, match="geographic needs to know where tiles lie; bijie does not tell"):
        make_splits(tiles, Data(cv="geographic", folds=3), seed=0)


# Official, pools and errors


def test_official() -> None:
    tiles = make_tiles([(i, 0) for i in range(6)], np.zeros(6), ["train"] * 3 + ["val"] * 2 + ["test"])
    splits = make_splits(tiles, Data(cv="official"), seed=0)
    assert splits.folds == 1
    assert [(tile["id"], tile["fold"]) for tile in splits.tiles] == [
        ("train/0", -1),
        ("train/1", -1),
        ("train/2", -1),
        ("val/3", 0),
        ("val/4", 0),
    ]
    assert splits.held_out(0) == {"val/3", "val/4"}
    assert splits.training_hashes(0) == {"hash 0", "hash 1", "hash 2"}
    with pytest.raises(InputError, match="no tile in the split val, which cv official needs"):
        make_splits(tiles.subset([0, 1, 2]), Data(cv="official"), seed=0)


def test_the_pool_decides_which_tiles_take_part() -> None:
    cells, ratios = grid(6, 6)
    tiles = make_tiles(cells, ratios, ["train"] * 24 + ["val"] * 6 + ["test"] * 6)
    assert len(make_splits(tiles, Data(folds=3), seed=0).tiles) == 30
    assert {tile["id"].split("/")[0] for tile in make_splits(tiles, Data(folds=3, pool=("train",)), seed=0).tiles} == {
        "train"
    }
    with pytest.raises(InputError, match="no tile in the split train or val, which cv blocks needs"):
        make_splits(tiles.subset(range(30, 36)), Data(), seed=0)


def test_unlabelled_pool() -> None:
    with pytest.raises(InputError, match=r"30 tiles of the pool have no mask, such as 0\.tif.*data\.pool"):
        make_splits(make_tiles(*grid(5, 6), labelled=False), Data(), seed=0)


def test_json_round_trip() -> None:
    splits = make_splits(make_tiles(*grid(6, 6)), Data(folds=3), seed=0)
    again = Splits.from_json(json.loads(json.dumps(splits.to_json())))
    assert again == splits


def test_folds_that_do_not_exist() -> None:
    splits = make_splits(make_tiles(*grid(6, 6)), Data(folds=3), seed=0)
    for fold in range(3):
        splits.require_fold(fold)
    for fold in (-1, 3):
        with pytest.raises(InputError, match=f"There is no fold {fold}: with cv blocks the folds are 0 to 2"):
            splits.require_fold(fold)


def test_only_folds_that_there_may_be_are_accepted_before_tiles_are_read():
    for cv in ("blocks", "geographic", "areas"):
        require_fold(2, Data(cv=cv, folds=3))
        with pytest.raises(InputError, match=f"no fold 3: with cv {cv} the folds are 0 to 2"):
            require_fold(3, Data(cv=cv, folds=3))
    for cv in ("holdout", "official"):
        require_fold(0, Data(cv=cv))
        with pytest.raises(InputError, match="no fold 1"):
            require_fold(1, Data(cv=cv))
