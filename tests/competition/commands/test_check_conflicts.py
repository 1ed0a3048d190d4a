"""Tiles that are published twice, the same image with different masks, and pictures whose grids meet."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from competition.cli import main
from competition.commands.check import check_data
from marsls_keras.config import Data
from marsls_keras.data.decoded.load import load
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.load_folder import load_folder
from marsls_keras.data.splits import make_splits
from marsls_keras.errors import InputError
from marsls_keras.inference.sliding_window import stitchable

SIX = ["14_24", "15_24", "19_23", "21_44", "24_44", "25_42"]


def mars(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        path, image, photometric="minisblack", metadata=None, **({"planarconfig": "contig"} if image.ndim == 3 else {})
    )
    return path


@pytest.fixture
def twice(data_root, write_mask) -> tuple[Path, np.ndarray, np.ndarray]:
    """Return a folder whose tile (1, 1) is in train and in test, with masks that never overlap, and both masks."""
    root = data_root(train=8, val=2, test=2)
    name = "col00001_row00001.tif"
    shutil.copy(root / "train" / "images" / name, root / "test" / "images" / name)
    first, second = np.zeros((2, 32, 32), np.uint8)
    first[3:9, 4:20], second[20:30, 1:8] = 1, 1
    write_mask(root / "train" / "masks" / name, first)
    write_mask(root / "test" / "masks" / name, second)
    return root, first, second


def test_the_same_image_with_another_mask_is_an_error_that_names_both(twice, capsys):
    root, *_ = twice
    with pytest.raises(InputError) as error:
        Dataset.open(root)
    message = str(error.value)
    for split in ("train", "test"):
        assert str(root / split / "masks" / "col00001_row00001.tif") in message
    assert "(96 and 70 pixels of landslide, 0 in common)" in message and "(row 1, column 1)" in message
    assert all(word in message for word in ("data.conflicts", "union", "ignore"))
    problems = check_data(root)["problems"]
    assert [(p["kind"], p["severity"]) for p in problems] == [("conflict", "error")]  # told once
    assert main(["check", str(root)]) == 2
    capsys.readouterr()
    for way in ("union", "ignore"):
        assert main(["check", str(root), "--conflicts", way]) == 0


def test_union_keeps_the_tile_once_with_both_masks(twice):
    root, first, second = twice
    tiles = load_folder(root, Data(conflicts="union"))
    (i,) = [i for i, ref in enumerate(tiles.refs) if ref.cell == (1, 1)]
    assert tiles.refs[i].id == "train/col00001_row00001" and len(tiles) == 12
    assert np.array_equal(tiles.masks[i], first | second)
    assert stitchable(tiles.refs) and {ref.raster for ref in tiles.refs} == {"base"}


def test_ignore_trains_on_neither_and_leaves_test_as_published(twice):
    root, _, second = twice
    tiles = load_folder(root, Data(conflicts="ignore"))
    (i,) = [i for i, ref in enumerate(tiles.refs) if ref.cell == (1, 1)]
    assert tiles.refs[i].split == "test" and np.array_equal(tiles.masks[i], second)
    assert len(make_splits(tiles, Data(folds=2), 0).tiles) == 9  # of eight and two


def test_a_decoded_union_is_not_taken_for_the_tile_alone(twice, tmp_path, monkeypatch):
    monkeypatch.setenv("MARSLS_CACHE", str(tmp_path / "cache"))
    root, first, second = twice
    for _ in range(2):
        for conflicts, there in (("union", first | second), ("ignore", second)):
            tiles = load_folder(root, Data(conflicts=conflicts, cache="disk"))
            (i,) = [i for i, ref in enumerate(tiles.refs) if ref.cell == (1, 1)]
            assert np.array_equal(tiles.masks[i], there)


def test_equal_masks_are_a_plain_overlap_and_other_images_another_picture(twice, write_image):
    root, *_ = twice
    shutil.copy(root / "train" / "masks" / "col00001_row00001.tif", root / "test" / "masks" / "col00001_row00001.tif")
    assert [p["kind"] for p in check_data(root)["problems"]] == ["overlap"]
    write_image(root / "test" / "images" / "col00001_row00001.tif", np.random.default_rng(1).random((32, 32, 7)))
    assert check_data(root)["problems"] == []
    assert {ref.raster for ref in Dataset.open(root).split("test")} == {"test"}


def test_a_copy_that_was_stored_in_another_way_is_the_same_image(twice):
    root, *_ = twice
    path = root / "test" / "images" / "col00001_row00001.tif"
    tifffile.imwrite(
        path, tifffile.imread(path), photometric="minisblack", planarconfig="contig", compression="zlib", metadata=None
    )
    with pytest.raises(InputError, match="0 in common"):
        Dataset.open(root)


def test_other_images_are_compared_with_the_data_in_any_orientation_and_with_their_masks(twice, tmp_path):
    root, _, second = twice
    other = tmp_path / "other"
    source = root / "train" / "images" / "col00001_row00001.tif"
    for name, turn in (("ImageT_patch_1_1.tif", 0), ("ImageT_patch_5_1.tif", 1)):
        mars(other / "images" / name, np.ascontiguousarray(np.rot90(tifffile.imread(source), turn)))
        mars(other / "masks" / name.replace("Image", "Mask"), second)
    shutil.rmtree(root / "test")
    problems = {problem["kind"]: problem for problem in check_data(root, images=other, release="mmls_v2")["problems"]}
    assert set(problems) == {"overlap", "conflict", "copies"} and all(
        p["severity"] == "warning" for p in problems.values()
    )
    overlap, conflict = problems["overlap"], problems["conflict"]
    assert "2 images" in overlap["message"] and "(1 of them turned or mirrored)" in overlap["message"]
    assert "1 of these have another mask there" in conflict["message"] and "MaskT_patch_1_1.tif" in conflict["message"]
    assert "96 and 70 pixels of landslide, 0 in common" in conflict["message"]


def test_the_six_tiles_of_mmls_v1_that_are_published_twice(real_data, tmp_path):
    """The other copies are not in the real data here: they are made as published, with masks that never overlap."""
    root = tmp_path / "mmls_v1"
    for split in ("train_partition", "validation_partition"):
        (root / split).mkdir(parents=True)
        for kind in ("images", "masks"):
            (root / split / kind).symlink_to(real_data / "mmls_v1" / split / kind)
    truth = {}
    for cell in SIX:
        image, mask = (
            real_data / "mmls_v1" / "train_partition" / f"{kind.lower()}s" / f"{kind}_patch_{cell}.tif"
            for kind in ("Image", "Mask")
        )
        there = tifffile.imread(mask)
        other = np.zeros_like(there)
        other[:40] = 1 - there[:40]
        (root / "test_partition" / "images").mkdir(parents=True, exist_ok=True)
        shutil.copy(image, root / "test_partition" / "images" / f"ImageT_patch_{cell}.tif")
        mars(root / "test_partition" / "masks" / f"MaskT_patch_{cell}.tif", other)
        truth[tuple(map(int, cell.split("_")))] = (there + other).astype(np.uint8)
    found = [p.message for p in Dataset.open(root, strict=False).problems]
    assert len(found) == 6 and all("0 in common" in text and "MaskT_patch_" in text for text in found)
    union = Dataset.open(root, conflicts="union")
    assert {tile.raster for tile in union.tiles} == {"base"} and len(union.tiles) == 306
    chosen = tuple(tile for tile in union.tiles if tile.cell in truth)
    tiles = load(Dataset(root, chosen))
    assert len(chosen) == 6 and all(np.array_equal(tiles.masks[i], truth[ref.cell]) for i, ref in enumerate(chosen))
    ignored = Dataset.open(root, conflicts="ignore")
    assert [len(ignored.split(split)) for split in ("train", "val", "test")] == [269, 31, 6]


# Pictures


def scene(root: Path, split: str, site: str, rng: np.random.Generator, cells: int = 4, kind: str = "") -> None:
    for i in range(cells):
        name = f"{{}}{site}_col{i % 2:05d}_row{i // 2:05d}.tif"
        mars(root / split / "images" / name.format(kind and "img_"), rng.random((32, 32, 7), dtype=np.float32))
        mars(root / split / "masks" / name.format(kind), np.full((32, 32), i % 2, np.uint8))


@pytest.mark.parametrize("kind", ["", "mask_"])
def test_two_sites_with_equal_cells_are_two_rasters(tmp_path, kind):
    rng = np.random.default_rng(0)
    for site in ("siteA", "siteB"):
        scene(tmp_path, "train", site, rng, kind=kind)
    scene(tmp_path, "test", "siteB", rng)
    dataset = Dataset.open(tmp_path)
    assert {(ref.split, ref.raster) for ref in dataset.tiles} == {
        ("train", "siteA"),
        ("train", "siteB"),
        ("test", "siteB test"),
    }
    for ref in dataset.tiles:
        assert ref.mask.name.replace("mask_", "") == ref.image.name.replace("img_", "")
    tiles = load(dataset)
    splits = make_splits(tiles, Data(folds=2, block_size=2), 0)
    assert {tile["block"] for tile in splits.tiles} == {"siteA/0/0", "siteB/0/0"}
    mosaic = TileGrid.of(tiles.refs, 32, 32)  # refuses two tiles in one cell
    for i, ref in enumerate(tiles.refs):
        near = mosaic.tiles_in(*(np.array(mosaic.origin(i)) - 64), 160, 160)
        assert {tiles.refs[k].raster for k in near} == {ref.raster}
    shutil.rmtree(tmp_path / "test")
    (tmp_path / "train" / "masks" / f"{kind}siteA_col00000_row00000.tif").unlink()
    (problem,) = Dataset.open(tmp_path, strict=False).problems
    assert problem.kind == "missing mask" and "siteA" in problem.message


@pytest.mark.parametrize(
    "names", [("a", "b"), ("0001", "0002", "0003", "0004"), ("train", "val", "train", "val"), ("x", "x", "x", "x")]
)
def test_words_that_do_not_tell_pictures_apart(tmp_path, names):
    for i, name in enumerate(names):
        for kind in ("images", "masks"):
            (tmp_path / "train" / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / "train" / kind / f"{name}_col{i:05d}_row00000.tif").touch()
    assert {ref.raster for ref in Dataset.open(tmp_path).tiles} == {"base"}


def test_two_tiles_of_one_cell_are_of_two_pictures_if_their_names_say_so(tmp_path):
    for folder in ("train/images", "train/masks", "plain"):
        (tmp_path / folder).mkdir(parents=True)
        for site in ("siteA", "siteB"):
            (tmp_path / folder / f"{site}_col00001_row00002.tif").touch()
    assert {ref.raster for ref in Dataset.open(tmp_path).tiles} == {"siteA", "siteB"}
    plain = Dataset.from_images(tmp_path / "plain").tiles
    assert {ref.raster for ref in plain} == {"images/siteA", "images/siteB"} and stitchable(plain)


def test_images_of_two_sites_lie_in_the_pictures_that_they_prove(tmp_path):
    rng = np.random.default_rng(0)
    for site in ("siteA", "siteB"):
        scene(tmp_path / "data", "train", site, rng, cells=6)
    folder = tmp_path / "images"
    folder.mkdir()
    for site in ("siteA", "siteB"):
        shutil.copy(tmp_path / "data" / "train" / "images" / f"{site}_col00001_row00001.tif", folder)
    shutil.copy(folder / "siteA_col00001_row00001.tif", folder / "siteB_col00000_row00002.tif")  # disproves siteB
    within = Dataset.from_images(folder).located_in(Dataset.open(tmp_path / "data"))
    assert [ref.raster for ref in within.tiles[:3]] == ["siteA", "images/siteB", "images/siteB"]
    assert [ref.raster for ref in within.tiles[3:]] == ["siteA"] * 5
