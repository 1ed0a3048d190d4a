"""Detection of releases: by values, file names and folders; and refused files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from marsls_keras.data.decoded.load import examine
from marsls_keras.data.formats.tile import read_tile
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.synthetic.mars import write_dataset
from marsls_keras.datasets import RELEASES
from marsls_keras.errors import InputError

MINIMUM = np.finfo(np.float32).min


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.1, 0.9, (16, 16, 7)).astype(np.float32)


@pytest.mark.parametrize("stem", ["my_patch_1", "Image_patch_1_2_copy", "site_patch_3_4", "Mask_patch_1_2"])
def test_part_of_a_name_decides_nothing(
    tmp_path: Path, write_image: Callable[..., Path], image: np.ndarray, stem: str
) -> None:
    assert read_tile(write_image(tmp_path / f"{stem}.tif", image)).release == "mmls_v2"
    assert (
        read_tile(write_image(tmp_path / f"{stem}.tif", RELEASES["challenge"].from_canonical(image))).release
        == "challenge"
    )


def test_values_that_contradict_the_name_are_refused(
    tmp_path: Path, write_image: Callable[..., Path], image: np.ndarray
) -> None:
    path = write_image(tmp_path / "Image_patch_1_2.tif", RELEASES["challenge"].from_canonical(image))
    with pytest.raises(
        InputError,
        match=r"Image_patch_1_2.tif: values from -\d+.* to \d+.*mmls_v1, as its name says.*\[0, 1\].*--release",
    ):
        read_tile(path)
    assert read_tile(path, release="challenge").release == "challenge"


def test_values_of_no_release_are_refused(tmp_path: Path, write_image: Callable[..., Path], image: np.ndarray) -> None:
    image[0, 0, 5] = -9999  # in the challenge's order this band is green
    with pytest.raises(
        InputError, match=r"tile.tif: values from -9999 to 0\.\d+, of no Mars release.*band 6, green, found -9999 to"
    ):
        read_tile(write_image(tmp_path / "tile.tif", image))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_integers_are_refused_with_what_was_found(tmp_path: Path, dtype: type) -> None:
    stored = np.random.default_rng(0).integers(20, 60, (16, 16, 7)).astype(dtype)
    tifffile.imwrite(tmp_path / "tile.tif", stored, photometric="minisblack", planarconfig="contig")
    with pytest.raises(InputError, match=rf"tile.tif: values from 20 to 59 of {np.dtype(dtype)}; .*float32.*--release"):
        read_tile(tmp_path / "tile.tif")
    np.testing.assert_allclose(
        read_tile(tmp_path / "tile.tif", "challenge").image[..., 5], stored[..., 0] / 254, rtol=1e-6
    )


def test_a_tile_that_tells_too_little_follows_the_others(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", "challenge", train=6, val=0, test=0, size=32)
    first, second = sorted((tmp_path / "data" / "train" / "images").iterdir())[:2]
    empty = np.full((32, 32, 7), MINIMUM)
    flat = empty.copy()
    flat[..., 1] = 0.5  # half a degree of slope; the other bands have no data
    for path, stored in ((first, empty), (second, flat)):
        tifffile.imwrite(path, stored, photometric="minisblack", planarconfig="contig")
    tiles, problems = examine(Dataset.open(tmp_path / "data").tiles)
    assert tiles is not None and tiles.release == "challenge" and len(tiles) == 6
    assert not [problem for problem in problems if problem.severity == "error"]
    assert not tiles.images[0].any()
    np.testing.assert_allclose(tiles.images[1][..., 4], 0.5 / 62.8026087, rtol=1e-5)


def test_releases_are_still_not_mixed(tmp_path: Path, write_image: Callable[..., Path], image: np.ndarray) -> None:
    write_dataset(tmp_path / "data", "challenge", train=4, val=0, test=0, size=32)
    path = sorted((tmp_path / "data" / "train" / "images").iterdir())[0]
    write_image(path, np.tile(image, (2, 2, 1)))
    _, problems = examine(Dataset.open(tmp_path / "data").tiles)
    (problem,) = [problem for problem in problems if problem.kind == "mixed releases"]
    assert "3 of challenge" in problem.message and "1 of mmls_v2" in problem.message


def test_pictures_in_folders_of_mars_are_not_taken_for_nepal(tmp_path: Path, write_mask: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    for number in range(2):
        name = f"col{number:05d}_row00000.tif"
        folder = tmp_path / "train" / "images"
        folder.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / name, rng.integers(0, 255, (32, 32, 3)).astype(np.uint8), photometric="rgb")
        write_mask(tmp_path / "train" / "masks" / name, rng.integers(0, 2, (32, 32)))
    tiles, problems = examine(Dataset.open(tmp_path).tiles)
    assert (
        tiles is None
        and "3 bands of 8 bits, as Nepal has them" in problems[0].message
        and "--release nepal" in problems[0].message
    )
    tiles, problems = examine(Dataset.open(tmp_path, release="nepal").tiles)
    assert tiles is not None and tiles.release == "nepal" and not problems
