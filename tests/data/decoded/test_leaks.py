"""Tiles of the same ground: copies in eight orientations, overlaps on the map, and folds that keep them together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.copies import TURNS, turned_copy

from marsls_keras.config import Data
from marsls_keras.data.decoded.leaks import Trace, content, groups, misplaced, overlaps
from marsls_keras.data.decoded.load import examine, load
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.splits import Splits, make_splits
from marsls_keras.errors import InputError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(16, 16), (12, 20)])
def test_the_content_is_that_of_all_eight_orientations_and_of_no_other(shape):
    image = RNG.random((*shape, 7), dtype=np.float32)
    valid = RNG.random(shape) < 0.9
    known = content(image, valid)
    assert known and {content(turn(image), turn(valid)) for turn in TURNS} == {known}
    filled = np.where(valid[..., None], image, np.float32(0.5))
    assert content(filled, valid) == known  # filled pixels do not count
    assert content(image, np.ones(shape, bool)) != known
    for other in (
        image[..., ::-1],
        np.roll(image, 1, 0),
        image + np.float32(1e-6),
        image.transpose(1, 0, 2).reshape(image.shape),
    ):
        if not np.array_equal(other, image):
            assert (
                content(other, valid) != known
                or shape[0] == shape[1]
                and np.array_equal(other, image.transpose(1, 0, 2))
            )
    changed = image.copy()
    changed[tuple(np.argwhere(valid)[3])] += 0.001
    assert content(changed, valid) != known
    assert content(np.full_like(image, 0.25), valid | True) == ""


def boxes(*places, size=10.0):
    return [Trace(f"{i}", crs, (x, y, x + size, y + size), (1.0, 1.0)) for i, (crs, x, y) in enumerate(places)]


def test_overlaps_against_all_pairs():
    places = [("mars"[: 1 + i % 2], *RNG.uniform(0, 60, 2)) for i in range(120)] + [("", 5.0, 5.0)] * 3
    traces = boxes(*places)
    expected = {
        (i, k)
        for i, (one, x, y) in enumerate(places)
        for k, (other, u, v) in enumerate(places)
        if i < k and one == other != "" and abs(x - u) < 9 and abs(y - v) < 9  # more than one of 10 pixels in common
    }
    assert set(overlaps(traces)) == expected and len(expected) > 100


def test_neighbours_and_pictures_tagged_with_the_whole_do_not_overlap():
    grid = boxes(*[("m", 10.0 * (i % 4), 10.0 * (i // 4) + 0.5 * (i % 2)) for i in range(16)])
    assert not list(overlaps(grid)) and not misplaced(grid)
    same = boxes(*[("m", 0.0, 0.0)] * 9)
    assert misplaced(same) == 9 and not list(overlaps(same))


def test_groups_are_joined_by_way_of_others():
    traces = boxes(("m", 0, 0), ("m", 8, 0), ("m", 16, 0), ("m", 40, 0), ("m", 90, 0))
    traces[4] = traces[4]._replace(content=traces[3].content)
    assert groups(traces, list("abcde")) == list("aaadd")
    assert groups(traces, list("abcab")) == list("aaaaa")
    assert groups((), list("abc")) == list("abc")


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_folds_keep_turned_copies_together(data_root, tmp_path, monkeypatch, cache):
    monkeypatch.setenv("MARSLS_CACHE", str(tmp_path / "cache"))
    root = data_root(train=24, val=2, test=0)
    apart = make_splits(load(Dataset.open(root)), Data(folds=4), 0)
    for k in range(1, 8):
        turned_copy(root, "col00000_row00000.tif", f"train/col{40 * k:05d}_row00000.tif", k)
    for _ in range(2):  # computed first, then read from the cache
        tiles = load(Dataset.open(root), cache=cache)
        for cv in ("blocks", "geographic", "holdout"):
            splits = make_splits(tiles, Data(folds=4, cv=cv), 0)
            found = {tile["fold"] for tile in splits.tiles if "row00000" in tile["id"] and "col00001" not in tile["id"]}
            assert len(found) == 1
    blocks = {tile["id"]: tile["block"] for tile in make_splits(tiles, Data(folds=4), 0).tiles}
    assert len(set(blocks.values())) == len({tile["block"] for tile in apart.tiles})  # copies add no block
    _, problems = examine(Dataset.open(root).tiles)
    assert [(p.kind, p.severity) for p in problems] == [
        ("copies", "warning")
    ] and "1 tile(s) are there several times" in problems[0].message


@pytest.fixture
def georeferenced(tmp_path):
    """Return a function that writes georeferenced tiles of a larger raster, whose names contain no grid cell."""
    import rasterio

    scene = RNG.random((7, 400, 400), dtype=np.float32)

    def write(split, places, size=32):
        for y, x in places:
            transform = rasterio.transform.from_origin(1000 + 10 * x, 9000 - 10 * y, 10, 10)
            for kind, bands in (
                ("images", scene[:, y : y + size, x : x + size]),
                ("masks", np.eye(size, dtype=np.uint8)[None]),
            ):
                path = tmp_path / "data" / split / kind / f"{split}_{y * 1000 + x}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                profile = {"driver": "GTiff", "count": len(bands), "height": size, "width": size, "dtype": bands.dtype}
                with rasterio.open(path, "w", crs="EPSG:32633", transform=transform, **profile) as file:
                    file.write(bands)
        return tmp_path / "data"

    return write


def test_folds_keep_tiles_that_overlap_on_the_map_together(georeferenced):
    # Five clusters of three tiles that overlap in a chain, and neighbours that only touch them.
    places = [(y, x + 16 * i) for y, x in ((0, 0), (0, 100), (0, 200), (100, 0), (100, 100)) for i in range(3)]
    root = georeferenced("train", [*places, (32, 0), (32, 100)])
    tiles = load(Dataset.open(root))
    splits = make_splits(tiles, Data(folds=5), 0)
    folds = {tile["id"]: tile["fold"] for tile in splits.tiles}
    for n in range(5):
        assert len({folds[f"train/train_{y * 1000 + x}"] for y, x in places[3 * n : 3 * n + 3]}) == 1
    assert len({tile["block"] for tile in splits.tiles}) == 7
    with pytest.raises(
        InputError, match=r"17 tiles in 7 block\(s\) cannot be divided into 8 folds\. 10 blocks .* overlap"
    ):
        make_splits(tiles, Data(folds=8), 0)
    _, problems = examine(Dataset.open(root).tiles)
    assert [(p.kind, p.severity) for p in problems] == [
        ("shared ground", "warning")
    ] and "10 pair(s) of tiles overlap" in problems[0].message


def test_overlap_with_val_and_test(georeferenced):
    georeferenced("train", [(0, 0), (0, 100)])
    georeferenced("val", [(20, 110), (300, 300)])
    root = georeferenced("test", [(0, 24), (200, 200)])
    tiles, problems = examine(Dataset.open(root).tiles)
    messages = [p.message for p in problems if p.kind == "shared ground"]
    assert (
        messages[0].startswith("1 pair(s) of a labelled and a test tile overlap on the map, such as ")
        and "test_24.tif" in messages[0]
    )
    assert messages[1].startswith("1 pair(s) of tiles overlap") and "train_100.tif" in messages[1]
    with pytest.raises(InputError, match="share ground with them, such as .*val_20110.tif"):
        make_splits(tiles, Data(cv="official"), 0)


def test_splits_know_what_was_trained_on_in_any_orientation_and_old_ones_still_open(data_root):
    root = data_root(train=8, val=2, test=0)
    tiles = load(Dataset.open(root))
    splits = make_splits(tiles, Data(folds=2), 0)
    again = Splits.from_json(splits.to_json())
    assert again == splits and again.contents == splits.contents
    old = Splits.from_json({key: value for key, value in splits.to_json().items() if key != "contents"})
    assert old == splits and old.contents == ()
    trained = np.array([tile["fold"] != 0 for tile in splits.tiles])
    turned = replace(tiles, hashes=("other",) * len(tiles))
    assert np.array_equal(splits.trained_on(0, tiles), trained) and np.array_equal(
        splits.trained_on(0, turned), trained
    )
    assert np.array_equal(old.trained_on(0, tiles), trained) and not old.trained_on(0, turned).any()
