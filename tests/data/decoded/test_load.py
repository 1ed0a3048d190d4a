"""Decoding of a whole dataset, with all problems reported together."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from marsls_keras.data.decoded.checks import require_same_family
from marsls_keras.data.decoded.load import examine, load
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.datasets import RELEASES
from marsls_keras.errors import InputError

Write = Callable[..., Path]


@pytest.fixture
def root(data_root: Callable[..., Path]) -> Path:
    return data_root()


def look(root: Path) -> tuple[Tiles, set[tuple[str, str, str]]]:
    """Return the tiles and (kind, severity, message) of the problems."""
    tiles, problems = examine(Dataset.open(root, strict=False).tiles)
    assert tiles is not None
    return tiles, {(problem.kind, problem.severity, problem.message) for problem in problems}


def test_tiles_are_what_the_files_hold(root: Path) -> None:
    dataset = Dataset.open(root)
    tiles = load(dataset)
    assert tiles.refs == dataset.tiles and len(tiles) == 12
    assert (tiles.images.shape, tiles.images.dtype) == ((12, 32, 32, 7), np.float32)
    assert (tiles.masks.shape, tiles.masks.dtype) == ((12, 32, 32), np.uint8)
    assert tiles.valid.shape == (12, 32, 32) and tiles.valid.all()
    assert tiles.release == "mmls_v2" and tiles.geo == ((),) * 12
    for i, ref in enumerate(dataset.tiles):
        np.testing.assert_array_equal(tiles.images[i], tifffile.imread(ref.image))
        np.testing.assert_array_equal(tiles.masks[i], tifffile.imread(root / ref.split / "masks" / ref.image.name))
        assert tiles.hashes[i] == hashlib.sha256(tifffile.imread(ref.image).astype("<f4").tobytes()).hexdigest()
    assert look(root)[1] == set()


def test_subset(root: Path) -> None:
    tiles = load(Dataset.open(root))
    some = tiles.subset([7, 2, 2])
    assert len(some) == 3 and some.release == tiles.release
    assert some.refs == (tiles.refs[7], tiles.refs[2], tiles.refs[2])
    assert some.hashes == (tiles.hashes[7], tiles.hashes[2], tiles.hashes[2])
    for name in ("images", "masks", "valid"):
        np.testing.assert_array_equal(getattr(some, name), np.take(getattr(tiles, name), [7, 2, 2], axis=0))
    assert len(tiles.subset(np.array([], int))) == 0


def test_unlabelled_tiles_have_empty_masks(root: Path) -> None:
    shutil.rmtree(root / "test" / "masks")
    tiles = load(Dataset.open(root))
    labelled = np.array([ref.mask is not None for ref in tiles.refs])
    assert labelled.sum() == 10
    assert tiles.masks[labelled].any((1, 2)).all() and not tiles.masks[~labelled].any()


def test_all_problems_are_listed_at_once(root: Path, write_image: Write, write_mask: Write) -> None:
    images, masks = root / "train" / "images", root / "train" / "masks"
    names = sorted(path.name for path in images.iterdir())
    rng = np.random.default_rng(0)
    (images / names[0]).write_bytes((images / names[0]).read_bytes()[:-100])
    (masks / names[1]).write_text("no mask")
    write_mask(masks / names[2], np.full((32, 32), 3))
    write_image(images / names[3], rng.random((16, 16, 7)))
    write_mask(masks / names[4], np.zeros((31, 32)))
    shutil.copy(images / names[5], images / names[6])  # twice in train
    shutil.copy(images / names[7], root / "test" / "images" / "col00000_row00005.tif")  # in train and in test
    write_image(root / "val" / "images" / "col00000_row00004.tif", rng.random((32, 32, 7)) * 200)  # raw values
    write_image(root / "test" / "images" / "col00001_row00005.tif", rng.random((32, 32, 6)))
    tiles, problems = look(root)
    texts = sorted((kind, message) for kind, severity, message in problems if severity == "error")
    assert [kind for kind, _ in texts] == [
        "duplicate",
        "mixed releases",
        "overlap",
        "unreadable image",
        "unreadable image",
        "unreadable mask",
        "unreadable mask",
        "wrong shape",
        "wrong shape",
    ]
    duplicate, mixed, overlap, bands, cut, no_mask, values, small, other_size = (text for _, text in texts)
    assert duplicate == f"the same tile is in train more than once: {images / names[5]}, {images / names[6]}"
    assert (
        mixed.startswith("The tiles are of several releases: 1 of challenge (such as ")
        and "; 5 of mmls_v2 (such as " in mixed
    )
    assert str(root / "val" / "images" / "col00000_row00004.tif") in mixed
    assert (
        overlap == f"the same tile is in test and train: {images / names[7]}, "
        f"{root / 'test' / 'images' / 'col00000_row00005.tif'}"
    )
    assert str(root / "test" / "images" / "col00001_row00005.tif") in bands and "expected 7 bands" in bands
    assert cut.startswith(f"{images / names[0]}: unreadable or truncated TIFF")
    assert no_mask.startswith(f"{masks / names[1]}: unreadable or truncated TIFF")
    assert values.startswith(f"{masks / names[2]}: a mask holds 0 and 1") and "found 3" in values
    assert (
        small == f"{images / names[3]}: 16 x 16 pixels, expected 32 x 32 as the others have; "
        "data.resize brings all to one size"
    )
    assert other_size == f"{masks / names[4]}: 31 x 32 pixels, its image has 32 x 32"
    assert [ref.id for ref in tiles.refs] == [
        *(f"train/{Path(names[i]).stem}" for i in (5, 6, 7)),
        "val/col00000_row00004",
        "val/col00001_row00004",
        "test/col00000_row00005",
    ]
    with pytest.raises(InputError) as error:
        load(Dataset.open(root))
    assert str(error.value).startswith(f"{root} has 9 problem(s):")
    assert all(text in str(error.value) for _, text in texts)


def test_structural_problems_are_listed_too(root: Path) -> None:
    (root / "val" / "masks" / "col00000_row00004.tif").unlink()
    (root / "val" / "images" / "col00001_row00004.tif").write_bytes(b"")
    with pytest.raises(InputError) as error:
        load(Dataset.open(root, strict=False))
    assert "has 2 problem(s)" in str(error.value)
    assert "col00000_row00004.tif has no mask" in str(error.value) and "col00001_row00004.tif: unreadable" in str(
        error.value
    )


def test_no_tile_is_left(root: Path, write_mask: Write) -> None:
    refs = Dataset.open(root).split("val")
    for ref in refs:
        write_mask(root / "val" / "masks" / ref.image.name, np.zeros((8, 8)))
    tiles, problems = examine(refs)
    assert tiles is None and [problem.kind for problem in problems] == ["wrong shape"] * 2
    for ref in refs:
        ref.image.write_bytes(b"")
    tiles, problems = examine(refs)
    assert tiles is None and [problem.kind for problem in problems] == ["unreadable image"] * 2
    with pytest.raises(InputError, match=r"has 2 problem\(s\)"):
        load(Dataset(root, refs))


def test_equal_tiles_are_found_whatever_their_file_looks_like(root: Path) -> None:
    image = tifffile.imread(root / "train" / "images" / "col00000_row00000.tif")
    other = root / "test" / "images" / "col00001_row00005.tif"
    planes = np.ascontiguousarray(np.moveaxis(image, -1, 0))
    tifffile.imwrite(
        other, planes, photometric="minisblack", planarconfig="separate", compression="zlib", byteorder=">"
    )
    _, problems = look(root)
    assert [(kind, severity) for kind, severity, _ in problems] == [("overlap", "error")]


def test_suspicious_tiles_are_warnings(root: Path, write_image: Write) -> None:
    path = root / "val" / "images" / "col00001_row00004.tif"
    image = tifffile.imread(path)
    image[..., 5] = 0.25
    image[:2, :, 4] = np.finfo(np.float32).min
    image[5, 5, 0] = np.nan
    write_image(path, image)
    tiles, problems = look(root)
    assert problems == {
        ("constant band", "warning", f"{path}: thermal has one value everywhere"),
        ("no-data", "warning", f"{path}: 65 pixels without data in some band, filled from the nearest"),
    }
    assert (~tiles.valid).sum() == 65
    np.testing.assert_array_equal(load(Dataset.open(root)).images, tiles.images)  # warnings do not stop loading


def test_a_release_can_be_forced(root: Path) -> None:
    dataset = Dataset.open(root)
    tiles = load(dataset, release="challenge")
    assert tiles.release == "challenge"
    np.testing.assert_array_equal(
        tiles.images[0], RELEASES["challenge"].to_canonical(tifffile.imread(dataset.tiles[0].image))
    )


def test_families() -> None:
    require_same_family("mmls_v2", "challenge", "images")
    require_same_family("challenge", "mmls_v2", "images")
    require_same_family("mmls_v1", "mmls_v1", "images")
    for pair in (("mmls_v1", "mmls_v2"), ("challenge", "mmls_v1")):
        with pytest.raises(
            InputError, match=rf"my/tiles holds tiles of {pair[1]}, but the run was trained on {pair[0]}"
        ):
            require_same_family(*pair, "my/tiles")
