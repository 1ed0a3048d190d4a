"""Index of a data folder: layouts, pairs, grid cells, and all structural problems together."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from marsls_keras.data.index.dataset import Dataset, grid_key, image_files
from marsls_keras.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def touch(folder: Path, names: Iterable[str]) -> None:
    """Make empty files; the index reads no pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def found(dataset: Dataset) -> set[tuple[str, str]]:
    return {(problem.kind, problem.message) for problem in dataset.problems}


def refusal(root: Path) -> str:
    with pytest.raises(InputError) as error:
        Dataset.open(root)
    return str(error.value)


# Layouts and pairs


def test_mmls_v2_layout(data_root: Callable[..., Path]) -> None:
    root = data_root()
    dataset = Dataset.open(root)
    assert (dataset.root, dataset.problems) == (root, ())
    assert [tile.id for tile in dataset.tiles] == [
        *(f"train/col{col:05d}_row{row:05d}" for col in range(2) for row in range(4)),
        *(f"val/col{col:05d}_row00004" for col in range(2)),
        *(f"test/col{col:05d}_row00005" for col in range(2)),
    ]
    for tile in dataset.tiles:
        assert tile.image.is_file() and tile.image.parent == root / tile.split / "images"
        assert tile.mask == root / tile.split / "masks" / tile.image.name
        assert tile.cell == (int(tile.image.stem[-5:]), int(tile.image.stem[3:8]))  # row, column
        assert tile.raster == "base"


def test_mmls_v1_layout_pairs_by_cell(root: Path) -> None:
    for folder, prefix, cells in (
        ("train_partition", "", [(7, 10), (10, 7)]),
        ("validation_partition", "", [(28, 51)]),
        ("test_partition", "T", [(10, 7)]),
    ):
        touch(root / folder / "images", (f"Image{prefix}_patch_{row}_{col}.tif" for row, col in cells))
        touch(root / folder / "masks", (f"Mask{prefix}_patch_{row}_{col}.tif" for row, col in cells))
    dataset = Dataset.open(root)
    assert [
        (tile.split, tile.raster, tile.cell, tile.image.name, tile.mask.name) for tile in dataset.tiles if tile.mask
    ] == [
        ("train", "base", (10, 7), "Image_patch_10_7.tif", "Mask_patch_10_7.tif"),
        ("train", "base", (7, 10), "Image_patch_7_10.tif", "Mask_patch_7_10.tif"),
        ("val", "base", (28, 51), "Image_patch_28_51.tif", "Mask_patch_28_51.tif"),
        ("test", "test", (10, 7), "ImageT_patch_10_7.tif", "MaskT_patch_10_7.tif"),
    ]


@pytest.mark.parametrize(
    ("train", "val"), [("train", "val"), ("training", "validation"), ("train_partition", "val_partition")]
)
def test_names_of_split_folders(root: Path, train: str, val: str) -> None:
    for folder in (train, val):
        touch(root / folder / "images", [f"{folder}.TIFF"])
        touch(root / folder / "masks", [f"{folder}.TIFF"])
    assert [(tile.split, tile.cell) for tile in Dataset.open(root).tiles] == [("train", None), ("val", None)]


def test_a_stem_beats_a_cell_and_endings_may_differ(root: Path) -> None:
    touch(root / "train" / "images", ["col00002_row00001.tif", "Image_patch_3_4.tif", "crater.tif"])
    touch(
        root / "train" / "masks",
        ["col00002_row00001.tiff", "col00004_row00003.tif", "crater.TIF", ".hidden.tif", "notes.txt"],
    )
    dataset = Dataset.open(root)
    assert {tile.image.name: tile.mask.name for tile in dataset.tiles if tile.mask} == {
        "col00002_row00001.tif": "col00002_row00001.tiff",
        "Image_patch_3_4.tif": "col00004_row00003.tif",
        "crater.tif": "crater.TIF",
    }


@pytest.mark.parametrize(
    ("stem", "cell"),
    [
        ("Image_patch_7_10", (7, 10)),
        ("MaskT_patch_28_0", (28, 0)),
        ("col00051_row00028", (28, 51)),
        ("isolated_col3_row4", (4, 3)),
        ("row00028_col00051", None),
        ("Image_patch_7_10_b", None),
        ("crater", None),
    ],
)
def test_grid_key_is_row_then_column(stem: str, cell: tuple[int, int] | None) -> None:
    assert grid_key(stem) == cell


def test_unlabelled_splits(root: Path) -> None:
    for split in ("val", "test"):
        touch(root / split / "images", ["a.tif", "b.tif"])
    dataset = Dataset.open(root)
    assert [(tile.id, tile.mask) for tile in dataset.tiles] == [
        (f"{s}/{n}", None) for s in ("val", "test") for n in "ab"
    ]


# Rasters


@pytest.mark.parametrize(("test_row", "raster"), [(5, "base"), (1, "test")])
def test_test_tiles_are_of_another_raster_if_their_cells_meet_those_of_training(
    root: Path, test_row: int, raster: str
) -> None:
    touch(root / "train" / "images", [f"col{col:05d}_row00001.tif" for col in range(3)])
    touch(root / "train" / "masks", [f"col{col:05d}_row00001.tif" for col in range(3)])
    touch(root / "test" / "images", [f"col{col:05d}_row{test_row:05d}.tif" for col in range(2, 4)])
    tiles = Dataset.open(root).tiles
    assert {tile.split: tile.raster for tile in tiles} == {"train": "base", "test": raster}
    assert {tile.raster for tile in tiles if tile.split == "test"} == {raster}


# Problems


def test_all_problems_are_listed_at_once(root: Path) -> None:
    train, val, test = root / "train", root / "val", root / "test"
    touch(train / "images", ["Image_patch_1_1.tif", "Image_patch_1_2.tif", "twin.tif", "twin.tiff", "lonely.tif"])
    touch(
        train / "masks",
        ["Mask_patch_1_1.tif", "col00001_row00001.tif", "Mask_patch_1_2.tif", "twin.tif", "Mask_patch_9_9.tif"],
    )
    touch(val / "images", ["a.tif", "b.tif"])
    touch(val / "masks", ["a.tif", "a.tiff"])
    touch(test / "images", ["readme.txt"])
    expected = {
        ("missing mask", f"{train / 'images' / 'lonely.tif'} has no mask of the same name or grid cell"),
        ("missing mask", f"{val / 'images' / 'b.tif'} has no mask of the same name or grid cell"),
        ("missing image", f"{train / 'masks' / 'Mask_patch_9_9.tif'} has no image of the same name or grid cell"),
        ("duplicate", f"{train / 'images' / 'twin'} is there as .tif and .tiff"),
        (
            "duplicate",
            f"{train / 'masks' / 'col00001_row00001.tif'} and Mask_patch_1_1.tif are masks of the same grid cell",
        ),
        ("duplicate", f"{val / 'masks' / 'a'} is there as .tif and .tiff"),
        ("empty split", f"{test / 'images'} holds no .tif file; fill it or remove {test}"),
    }
    dataset = Dataset.open(root, strict=False)
    assert found(dataset) == expected and len(dataset.problems) == len(expected)
    assert {problem.severity for problem in dataset.problems} == {"error"}
    message = refusal(root)
    assert message.startswith(f"{root} has {len(expected)} problem(s):")
    assert all(text in message for _, text in expected)


def test_one_cell_claimed_twice(root: Path) -> None:
    for split, name in (
        ("train", "Image_patch_3_4.tif"),
        ("train", "col00004_row00003.tif"),
        ("val", "col00004_row00003.tif"),
    ):
        touch(root / split / "images", [name])
        touch(root / split / "masks", [name.replace("Image", "Mask")])
    paths = [
        root / "train" / "images" / "Image_patch_3_4.tif",
        root / "train" / "images" / "col00004_row00003.tif",
        root / "val" / "images" / "col00004_row00003.tif",
    ]
    assert ("duplicate", f"{' and '.join(map(str, paths))} claim the same grid cell (row 3, column 4)") in found(
        Dataset.open(root, strict=False)
    )


def test_masks_folder_without_masks(root: Path) -> None:
    touch(root / "train" / "images", ["a.tif"])
    (root / "train" / "masks").mkdir()
    assert found(Dataset.open(root, strict=False)) == {
        ("missing mask", f"{root / 'train' / 'images' / 'a.tif'} has no mask of the same name or grid cell")
    }


def test_training_images_without_a_folder_of_masks(root: Path) -> None:
    touch(root / "train" / "images", ["a.tif"])
    assert "train has images but no folder masks" in refusal(root)


def test_split_without_a_folder_of_images(root: Path) -> None:
    touch(root / "train", ["a.tif"])
    assert f"{root / 'train' / 'images'} holds no .tif file" in refusal(root)


def test_a_split_that_is_there_twice(root: Path) -> None:
    for folder in ("val", "validation_partition"):
        touch(root / folder / "images", ["a.tif"])
    assert f"val is there twice: {root / 'val'}, {root / 'validation_partition'}" in refusal(root)


def test_a_long_list_of_problems_is_cut(root: Path) -> None:
    touch(root / "train" / "images", [f"{i}.tif" for i in range(30)])
    (root / "train" / "masks").mkdir()
    message = refusal(root)
    assert message.startswith(f"{root} has 30 problem(s):")
    assert message.count("has no mask") == 20 and message.endswith("… and 10 more")


@pytest.mark.parametrize("made", ["missing", "file", "empty", "other"])
def test_no_data_there_says_where_to_get_it(root: Path, made: str) -> None:
    if made == "file":
        root.touch()
    elif made in ("empty", "other"):
        root.mkdir()
        touch(root / "images", ["a.tif"] if made == "other" else [])
    message = refusal(root)
    assert str(root) in message
    told = {"missing": "There is no data folder", "file": "is a file, expected a data folder"}
    assert told.get(made, "holds none of the folders train, val, test") in message
    assert all(
        hint in message for hint in ("MMLSv2", "https://github.com/MAIN-Lab/MMLS_v2", "CodaBench", "marsls synth data")
    )


# Splits and plain folders


def test_split(data_root: Callable[..., Path]) -> None:
    dataset = Dataset.open(data_root(test=0))
    assert [tile.id for tile in dataset.split("val")] == ["val/col00000_row00004", "val/col00001_row00004"]
    assert dataset.split("train", "val") == dataset.tiles == dataset.split("val", "train")
    with pytest.raises(InputError, match="has no tile in the split 'test'; it has train, val"):
        dataset.split("train", "test")


@pytest.mark.parametrize("inside", ["", "images"])
def test_a_plain_folder_of_images(root: Path, inside: str) -> None:
    touch(root / inside, ["col00001_row00002.tif", "b.TIFF", "notes.txt", ".part.tif"])
    dataset = Dataset.from_images(root)
    assert dataset.root == root / inside
    assert [(tile.id, tile.image.name, tile.mask, tile.split, tile.cell) for tile in dataset.tiles] == [
        ("images/b", "b.TIFF", None, "images", None),
        ("images/col00001_row00002", "col00001_row00002.tif", None, "images", (2, 1)),
    ]
    assert image_files(root) == [tile.image for tile in dataset.tiles]


@pytest.mark.parametrize("names", [("x.tif", "x.tiff"), ("x.tif", "X.tif"), ("x.tif", "x.TIF")])
def test_names_that_would_clash_in_the_output(root: Path, names: tuple[str, str]) -> None:
    touch(root, [*names, "y.tif"])
    with pytest.raises(InputError, match="(?s)clash.*each needs a name of its own") as error:
        Dataset.from_images(root)
    assert all(name in str(error.value) for name in names) and "y.tif" not in str(error.value)


def test_no_images_in_a_plain_folder(root: Path) -> None:
    with pytest.raises(InputError, match="There is no folder .*data. Give the folder that holds the image tiles"):
        Dataset.from_images(root)
    touch(root, ["notes.txt"])
    with pytest.raises(InputError, match="data holds no .tif, .h5 or .png file"):
        Dataset.from_images(root)


def test_the_index_follows_the_folder(data_root: Callable[..., Path], tmp_path: Path) -> None:
    root = data_root()
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    assert [tile.id for tile in Dataset.open(copy).tiles] == [tile.id for tile in Dataset.open(root).tiles]
    (copy / "val" / "masks" / "col00000_row00004.tif").unlink()
    assert "col00000_row00004.tif has no mask" in refusal(copy)


# A folder of images located in the raster of a dataset


def test_images_lie_in_another_datasets_picture_only_if_their_bytes_prove_it(data_root, tmp_path) -> None:
    data = Dataset.open(data_root())  # two columns: train rows 0 to 3, val row 4, test row 5
    folder = tmp_path / "images"
    shutil.copytree(data.root / "test" / "images", folder)
    copied = Dataset.from_images(folder)
    within = copied.located_in(data)
    assert [tile.image for tile in within.tiles[:2]] == [tile.image for tile in copied.tiles]
    assert {tile.raster for tile in within.tiles} == {"base"}
    assert [tile.id for tile in within.tiles[2:]] == [tile.id for tile in data.tiles if tile.split != "test"]
    # A tile that the data do not have is kept.
    shutil.copy(folder / "col00000_row00005.tif", folder / "col00007_row00005.tif")
    assert len(Dataset.from_images(folder).located_in(data).tiles) == 3 + 10
    # A tile that differs from the data's tile of its cell: the grid of another raster.
    shutil.copy(folder / "col00000_row00005.tif", folder / "col00001_row00002.tif")
    other = Dataset.from_images(folder)
    assert other.located_in(data) is other


def test_nothing_in_common_proves_nothing(data_root, tmp_path) -> None:
    data = Dataset.open(data_root())
    (folder := tmp_path / "images").mkdir()
    shutil.copy(data.tiles[0].image, folder / "col00003_row00003.tif")
    shutil.copy(data.tiles[0].image, folder / "a.tif")
    apart = Dataset.from_images(folder)
    assert apart.located_in(data) is apart
