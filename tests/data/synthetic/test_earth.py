"""Landslide4Sense, Bijie and Nepal: files compared with other readers, folder layouts, and damaged files."""

from __future__ import annotations

import hashlib
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile
from matplotlib import image as pictures
from scipy.ndimage import map_coordinates

from marsls_keras.config import Data
from marsls_keras.data.decoded.load import examine, load
from marsls_keras.data.formats.tile import read_mask, read_shape, read_tile
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.splits import make_splits
from marsls_keras.data.synthetic.mars import write_dataset
from marsls_keras.datasets.landslide4sense import SENTINEL
from marsls_keras.errors import InputError

COUNTS = {"train": 9, "val": 3, "test": 2}
SIZE = 32


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a data folder of each release."""
    root = tmp_path_factory.mktemp("earth")
    for release in ("landslide4sense", "bijie", "nepal"):
        write_dataset(root / release, release, **COUNTS, size=SIZE, seed=2)
    return {release: root / release for release in ("landslide4sense", "bijie", "nepal")}


@pytest.fixture
def copies(written: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a release's folder, so that a test may damage the copy."""
    return lambda release: Path(shutil.copytree(written[release], tmp_path / release))


def look(root: Path, release: str = "auto", resize: int | None = None) -> list[tuple[str, str]]:
    """Return kind and message of all errors that `check` reports, sorted."""
    dataset = Dataset.open(root, strict=False, release=release)
    _, problems = examine(dataset.tiles, release, resize)
    return sorted(
        (problem.kind, problem.message) for problem in (*dataset.problems, *problems) if problem.severity == "error"
    )


def h5(path: Path, key: str, array: np.ndarray, **options) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(key, data=array, **options)
    return path


def png(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(array)))
    return path


# Values


def test_landslide4sense_is_what_h5py_reads(written: dict[str, Path]) -> None:
    root = written["landslide4sense"]
    tiles = load(Dataset.open(root))
    assert (tiles.release, tiles.bands, tiles.images.shape) == ("landslide4sense", SENTINEL, (14, SIZE, SIZE, 14))
    assert [ref.id for ref in tiles.refs[:2]] == ["train/image_1", "train/image_2"]
    for ref, image, mask in zip(tiles.refs, tiles.images, tiles.masks, strict=True):
        with h5py.File(ref.image) as a, h5py.File(ref.mask) as b:
            assert a["img"].dtype == np.float64 and b["mask"].dtype == np.uint8
            np.testing.assert_array_equal(image, a["img"][:].astype(np.float32))
            np.testing.assert_array_equal(mask, b["mask"][:])
        assert ref.mask == root / {"train": "TrainData", "val": "ValidData", "test": "TestData"}[ref.split] / "mask" / (
            ref.image.name.replace("image", "mask")
        )
        assert (ref.cell, ref.raster, ref.labelled) == (None, ref.id, True)
    assert 0 < (tiles.masks.any((1, 2))).sum() < len(tiles)


def test_bijie_is_what_matplotlib_reads(written: dict[str, Path]) -> None:
    root = written["bijie"]
    tiles = load(Dataset.open(root))
    assert (tiles.release, tiles.bands, tiles.images.shape) == ("bijie", ("red", "green", "blue"), (14, SIZE, SIZE, 3))
    found = {(ref.split, ref.landslide) for ref in tiles.refs}
    assert found == {("train", True), ("train", False)}
    for ref, image, mask in zip(tiles.refs, tiles.images, tiles.masks, strict=True):
        # matplotlib scales PNG to [0, 1].
        np.testing.assert_allclose(image, pictures.imread(ref.image)[..., :3], atol=1e-7)
        folder = "landslide" if ref.landslide else "non-landslide"
        assert (
            ref.id == f"train/{folder}/{ref.image.stem}"
            and ref.labelled
            and ref.image.parent == root / folder / "image"
        )
        if ref.landslide:
            np.testing.assert_array_equal(mask, pictures.imread(root / folder / "mask" / ref.image.name))
        else:
            assert ref.mask is None and not mask.any()


def test_nepal_is_what_tifffile_reads(written: dict[str, Path]) -> None:
    root = written["nepal"]
    tiles = load(Dataset.open(root))
    assert (tiles.release, tiles.images.shape) == ("nepal", (14, SIZE, SIZE, 3))
    assert {ref.split: sum(r.split == ref.split for r in tiles.refs) for ref in tiles.refs} == COUNTS
    for ref, image, mask in zip(tiles.refs, tiles.images, tiles.masks, strict=True):
        np.testing.assert_allclose(image, tifffile.imread(ref.image) / 255, atol=1e-7)
        np.testing.assert_array_equal(mask, pictures.imread(ref.mask))
    splits = make_splits(tiles, Data(cv="official"), seed=0)  # the dataset's own split
    assert [(tile["id"].split("/")[0], tile["fold"]) for tile in splits.tiles] == [("train", -1)] * 9 + [("val", 0)] * 3
    assert make_splits(tiles, Data(folds=3), seed=0).folds == 3


@pytest.mark.parametrize("release", ["landslide4sense", "bijie", "nepal"])
def test_equal_arguments_give_identical_files(written: dict[str, Path], tmp_path: Path, release: str) -> None:
    def hashes(root: Path) -> dict[str, str]:
        return {
            str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()
        }

    counts = write_dataset(tmp_path / "again", release, **COUNTS, size=SIZE, seed=2)
    assert hashes(tmp_path / "again") == hashes(written[release])
    assert counts == ({"train": 14} if release == "bijie" else COUNTS)


def test_no_data_of_landslide4sense_is_filled(copies: Callable[[str], Path]) -> None:
    path = copies("landslide4sense") / "TrainData/img/image_3.h5"
    with h5py.File(path, "r+") as file:
        kept = file["img"][5, 7, 13]
        file["img"][5, 8:10, 13] = np.nan
    tile = read_tile(path)
    assert tile.image[5, 8, 13] == np.float32(kept) and np.argwhere(~tile.valid).tolist() == [[5, 8], [5, 9]]


# Layouts


def test_copies_of_landslide4sense_with_other_folders(copies: Callable[[str], Path]) -> None:
    root = copies("landslide4sense")
    expected = load(Dataset.open(root))
    for old, new in (("TrainData", "train"), ("ValidData", "validation"), ("TestData", "test")):
        (root / "images").mkdir(exist_ok=True), (root / "annotations").mkdir(exist_ok=True)
        (root / old / "img").rename(root / "images" / new)
        (root / old / "mask").rename(root / "annotations" / new)
        (root / old).rmdir()
    tiles = load(Dataset.open(root))
    assert tiles.hashes == expected.hashes and [ref.id for ref in tiles.refs] == [ref.id for ref in expected.refs]
    np.testing.assert_array_equal(tiles.masks, expected.masks)


def test_masks_of_validation_and_test_may_be_absent(copies: Callable[[str], Path]) -> None:
    root = copies("landslide4sense")
    for folder in ("ValidData", "TestData"):
        shutil.rmtree(root / folder / "mask")
    dataset = Dataset.open(root)
    assert {(ref.split, ref.labelled) for ref in dataset.tiles} == {("train", True), ("val", False), ("test", False)}
    shutil.rmtree(root / "TrainData" / "mask")
    assert look(root) == [("missing mask", f"{root}/TrainData has images but no folder mask")]


def test_other_names_of_nepals_folders(copies: Callable[[str], Path]) -> None:
    root = copies("nepal")
    expected = load(Dataset.open(root)).hashes
    for split, name in (("train", "training"), ("val", "valid"), ("test", "test")):
        (root / split / "images").rename(root / split / "image")
        (root / split / "masks").rename(root / split / "label")
        for file in (root / split / "image").iterdir():  # images as PNG, too, as in some copies of the dataset
            png(file.with_suffix(".png"), tifffile.imread(file))
            file.unlink()
        (root / split).rename(root / name)
    tiles = load(Dataset.open(root))
    assert tiles.release == "nepal" and tiles.hashes == expected


def test_several_datasets_in_one_folder(copies: Callable[[str], Path], written: dict[str, Path]) -> None:
    root = copies("bijie")
    shutil.copytree(written["landslide4sense"], root, dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"holds folders of landslide4sense and of bijie\..*--release"):
        Dataset.open(root)
    assert {ref.release for ref in Dataset.open(root, release="bijie").tiles} == {"bijie"}
    with pytest.raises(InputError, match="holds none of the folders train, val, test"):
        Dataset.open(root, release="nepal")
    with pytest.raises(InputError, match="holds none of the folders TrainData"):
        Dataset.open(written["nepal"], release="landslide4sense")


def test_plain_folders(written: dict[str, Path]) -> None:
    for release, folder in (("landslide4sense", "TestData"), ("bijie", "non-landslide"), ("nepal", "test")):
        dataset = Dataset.from_images(written[release] / folder)
        tiles = load(dataset)
        assert tiles.release == release and {ref.split for ref in tiles.refs} == {"images"}
        assert all(read_shape(ref.image)[:2] == (SIZE, SIZE) for ref in tiles.refs)


# Sizes


def test_pictures_of_several_sizes(copies: Callable[[str], Path]) -> None:
    root = copies("bijie")
    first = min((root / "landslide" / "image").iterdir())
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (48, 40, 3), np.uint8)
    labels = np.repeat(np.repeat(rng.random((12, 10)) < 0.5, 4, 0), 4, 1)
    png(first, large)
    mask = root / "landslide" / "mask" / first.name
    message = (
        f"{first}: 48 x 40 pixels, expected {SIZE} x {SIZE} as the others have; data.resize brings all to one size"
    )
    assert look(root) == [("wrong shape", message)]
    assert look(root, resize=24) == [("wrong shape", f"{mask}: {SIZE} x {SIZE} pixels, its image has 48 x 40")]
    png(mask, labels * np.uint8(255))
    assert look(root) == [("wrong shape", message)]
    tiles = load(Dataset.open(root), resize=24)
    assert tiles.images.shape == (14, 24, 24, 3)
    position = [ref.image for ref in tiles.refs].index(first)
    # The centre of pixel i of n lies at (i + 0.5) / n of the side, for any n.
    rows, columns = ((np.arange(24) + 0.5) / 24 * side - 0.5 for side in (48, 40))
    grid = np.meshgrid(rows, columns, indexing="ij")
    expected = np.stack(
        [map_coordinates(large[..., band] / 255, grid, order=1, mode="nearest") for band in range(3)], -1
    )
    np.testing.assert_allclose(tiles.images[position], expected, atol=1e-5)
    nearest = labels[np.floor(rows + 0.5).astype(int)][:, np.floor(columns + 0.5).astype(int)]
    # Where the centre of a pixel falls on a border between pixels, either may be taken.
    assert (tiles.masks[position] != nearest).mean() < 0.1
    assert set(np.unique(tiles.masks)) == {0, 1}


# Damage


def test_all_damage_of_landslide4sense_is_listed_at_once(copies: Callable[[str], Path]) -> None:
    root = copies("landslide4sense")
    img, mask = root / "TrainData/img", root / "TrainData/mask"
    rng = np.random.default_rng(1)
    h5(img / "image_1.h5", "image", rng.random((SIZE, SIZE, 14)))
    h5(img / "image_2.h5", "img", rng.random((SIZE, SIZE)))
    h5(img / "image_3.h5", "img", rng.random((SIZE, SIZE, 13)))
    (img / "image_4.h5").write_bytes((img / "image_4.h5").read_bytes()[:-200])
    (img / "image_5.h5").write_text("<html>404 Not Found</html>")
    h5(mask / "mask_6.h5", "mask", np.full((SIZE, SIZE), 7, np.uint8))
    h5(mask / "mask_7.h5", "mask", np.zeros((SIZE, SIZE, 1), np.uint8))
    h5(img / "image_8.h5", "img", np.full((SIZE, SIZE, 14), b"x"))
    shutil.copy(img / "image_9.h5", img / "image_09.h5")
    (mask / "mask_9.h5").rename(mask / "mask_77.h5")
    with h5py.File(root / "TestData/img/image_1.h5", "w") as file:
        file.create_dataset("img", (SIZE, SIZE, 14), "f8")  # its pixels were never written
    h5(root / "TestData/img/image_2.h5", "img", np.where(np.eye(SIZE)[..., None], 2e5, rng.random((SIZE, SIZE, 14))))
    h5(root / "ValidData/img/image_1.h5", "img", rng.random((16, SIZE, 14)))
    problems = look(root)
    expected = [
        ("duplicate", f"{img}/image_9.h5 and image_09.h5 are images of the same number"),
        ("duplicate", "the same tile is in train more than once"),
        ("missing image", f"{mask}/mask_77.h5 has no image of the same number"),
        ("missing mask", f"{img}/image_09.h5 has no mask of the same number"),
        ("missing mask", f"{img}/image_9.h5 has no mask of the same number"),
        ("unreadable image", f"{root}/TestData/img/image_1.h5: img was never written"),
        ("unreadable image", f"{root}/TestData/img/image_2.h5: values up to 200000, which no band has"),
        ("unreadable image", f"{img}/image_1.h5: expected a dataset img, found image. Is this an image tile"),
        ("unreadable image", f"{img}/image_2.h5: expected img of H x W x 14 bands, found {SIZE} x {SIZE}"),
        ("unreadable image", f"{img}/image_3.h5: expected img of H x W x 14 bands, found {SIZE} x {SIZE} x 13"),
        ("unreadable image", f"{img}/image_4.h5: unreadable or truncated HDF5"),
        ("unreadable image", f"{img}/image_5.h5: unreadable or truncated HDF5"),
        ("unreadable image", f"{img}/image_8.h5: expected numbers in img"),
        ("unreadable mask", f"{mask}/mask_6.h5: a mask holds 0 and 1 (or 0 and 255), found 7"),
        ("unreadable mask", f"{mask}/mask_7.h5: expected mask of H x W, found {SIZE} x {SIZE} x 1"),
        ("wrong shape", f"{root}/ValidData/img/image_1.h5: 16 x {SIZE} pixels, expected {SIZE} x {SIZE}"),
    ]
    found = sorted((kind, message) for kind, message in problems)
    assert len(found) == len(expected)
    for kind, start in expected:
        assert [message for k, message in found if k == kind and message.startswith(start)], (kind, start, found)
    with pytest.raises(InputError, match=rf"has {len(expected)} problem\(s\)"):
        load(Dataset.open(root, strict=False))


def test_all_damage_of_bijie_is_listed_at_once(copies: Callable[[str], Path]) -> None:
    root = copies("bijie")
    image, mask, without = root / "landslide/image", root / "landslide/mask", root / "non-landslide"
    names = sorted(path.name for path in image.iterdir())
    rng = np.random.default_rng(1)
    png(image / names[0], rng.integers(0, 256, (SIZE, SIZE), np.uint8))
    png(image / names[1], rng.integers(0, 60_000, (SIZE, SIZE, 3), np.uint16))
    (image / names[2]).write_bytes((image / names[2]).read_bytes()[:-300])
    alpha = rng.integers(0, 256, (SIZE, SIZE, 4), np.uint8)
    half = ((alpha[..., 3] > 0) & (alpha[..., 3] < 255)).sum()
    png(image / names[3], alpha)
    png(mask / names[4], np.full((SIZE, SIZE), 128, np.uint8))
    png(mask / names[5], rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8))
    (mask / names[6]).rename(mask / "other.png")
    other = min((without / "image").iterdir()).name
    png(without / "mask" / other, np.eye(SIZE, dtype=np.uint8) * 255)
    expected = [
        (
            "contradictory mask",
            f"{without}/mask/{other}: {SIZE} pixels of landslide in the mask of a tile that is filed as having none",
        ),
        ("missing image", f"{mask}/other.png has no image of the same name"),
        ("missing mask", f"{image}/{names[6]} has no mask of the same name"),
        ("unreadable image", f"{image}/{names[0]}: expected RGB, found gray. Is this an image tile?"),
        ("unreadable image", f"{image}/{names[1]}: expected RGB of 8 bits, found uint16. Write it with 8 bits a band."),
        ("unreadable image", f"{image}/{names[2]}: unreadable or truncated PNG"),
        (
            "unreadable image",
            f"{image}/{names[3]}: expected RGB, found {half} half-transparent pixels. Is this an image tile?",
        ),
        ("unreadable mask", f"{mask}/{names[4]}: a mask holds 0 and 1 (or 0 and 255), found 128."),
        ("unreadable mask", f"{mask}/{names[5]}: expected a gray mask, found colours. Is this a mask?"),
    ]
    found = look(root)
    assert [kind for kind, _ in found] == [kind for kind, _ in expected]
    assert all(message.startswith(start) for (_, message), (_, start) in zip(found, expected, strict=True))


def test_an_empty_mask_of_a_landslide_is_a_warning(copies: Callable[[str], Path]) -> None:
    root = copies("bijie")
    path = min((root / "landslide/mask").iterdir())
    png(path, np.zeros((SIZE, SIZE), np.uint8))
    _, problems = examine(Dataset.open(root).tiles)
    assert [(problem.kind, problem.severity) for problem in problems] == [("empty mask", "warning")]


def test_damage_of_nepal(copies: Callable[[str], Path]) -> None:
    root = copies("nepal")
    images = sorted((root / "train/images").iterdir())
    rng = np.random.default_rng(1)
    tifffile.imwrite(images[0], rng.random((SIZE, SIZE, 3), np.float32), photometric="rgb")
    tifffile.imwrite(images[1], rng.integers(0, 256, (SIZE, SIZE, 4), np.uint8), photometric="rgb")
    (root / "train/masks" / f"{images[2].stem}.png").write_bytes(b"")
    found = look(root)
    assert [kind for kind, _ in found] == ["unreadable image", "unreadable image", "unreadable mask"]
    assert found[0][1].startswith(f"{images[0]}: expected RGB of 8 bits, found float32")
    assert found[1][1].startswith(f"{images[1]}: expected 3 bands of H x W, found {SIZE}x{SIZE}x4")
    assert found[2][1].startswith(f"{root}/train/masks/{images[2].stem}.png: unreadable or truncated PNG")


def test_files_that_are_no_png(tmp_path: Path) -> None:
    whole = png(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)).read_bytes()
    path = tmp_path / "cut.png"
    for end in (0, 4, 20, 30, 60, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"cut\.png: unreadable or truncated PNG"):
            read_tile(path)
    header = b"IHDR" + (1 << 30).to_bytes(4, "big") * 2 + whole[24:29]
    path.write_bytes(whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:])
    for read in (read_tile, read_shape):
        with pytest.raises(InputError, match="are no tile"):
            read(path)
    for read in (read_tile, read_mask, read_shape):
        for name in ("missing.png", "missing.h5"):
            with pytest.raises(InputError, match=f"{name} does not exist"):
                read(tmp_path / name)
        with pytest.raises(InputError, match=r"tile\.jpg: expected a file that ends in \.tif, \.tiff, \.h5, \.png"):
            read(tmp_path / "tile.jpg")


def test_masks_that_were_saved_in_other_ways(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).random((12, 10)) < 0.5
    white = labels * np.uint8(255)
    for name, array in {
        "gray": white,
        "binary": labels.astype(np.uint8),
        "colour": np.repeat(white[..., None], 3, -1),
        "gray with alpha": np.stack([white, np.full_like(white, 255)], -1),
        "alpha": np.dstack([white, white, white, np.full_like(white, 255)]),
    }.items():
        np.testing.assert_array_equal(read_mask(png(tmp_path / f"{name}.png", array)), labels, err_msg=name)
