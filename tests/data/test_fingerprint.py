"""The fingerprint: equal for equal data in any folder, different for one pixel; statistics compared with NumPy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from marsls_keras.bands.names import BANDS
from marsls_keras.data.decoded.load import load
from marsls_keras.data.fingerprint import band_statistics, fingerprint, images_digest
from marsls_keras.data.index.dataset import Dataset


@pytest.fixture
def root(data_root: Callable[..., Path]) -> Path:
    return data_root()


def taken(root: Path) -> dict:
    return fingerprint(load(Dataset.open(root)), root)


def test_content(root: Path) -> None:
    path = root / "train" / "images" / "col00000_row00000.tif"
    image = tifffile.imread(path)
    image[0, :5, 4] = np.nan
    tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig")
    result = taken(root)
    masks = np.stack([tifffile.imread(path) for path in root.glob("*/masks/*.tif")])
    ratios = masks.reshape(12, -1).mean(1)
    assert result["data_root"] == str(root.resolve())
    assert (result["release"], result["size"], result["no_data_pixels"]) == ("mmls_v2", [32, 32], 5)
    assert result["tiles"] == {"train": 8, "val": 2, "test": 2}
    assert result["foreground_ratio"] == pytest.approx(
        {"min": ratios.min(), "mean": ratios.mean(), "max": ratios.max()}
    )
    assert len(result["sha256"]) == 64 and list(result["bands"]) == list(BANDS)
    assert json.loads(json.dumps(result)) == result


def test_statistics() -> None:
    images = np.random.default_rng(0).normal(5, 2, (4, 8, 8, 7)).astype(np.float32)
    table = band_statistics(images, BANDS)
    for i, band in enumerate(BANDS):
        values = np.sort(images[..., i].ravel().astype(np.float64))
        assert list(table[band]) == ["min", "p1", "mean", "std", "p99", "max"]
        expected = [values[0], np.quantile(values, 0.01), values.sum() / 256, 0, np.quantile(values, 0.99), values[-1]]
        expected[3] = np.sqrt(((values - expected[2]) ** 2).mean())
        np.testing.assert_allclose(list(table[band].values()), expected, atol=2e-6, err_msg=band)


def test_the_digest_is_that_of_the_content_not_of_the_place_or_the_format(root: Path, tmp_path: Path) -> None:
    before = taken(root)
    copy = Path(shutil.copytree(root, tmp_path / "elsewhere" / "copy"))
    for path in copy.glob("*/images/*.tif"):
        tifffile.imwrite(
            path, tifffile.imread(path), photometric="minisblack", planarconfig="contig", compression="zlib"
        )
    after = taken(copy)
    assert after["data_root"] != before["data_root"]
    assert {**after, "data_root": ""} == {**before, "data_root": ""}


@pytest.mark.parametrize("change", ["pixel", "mask", "name", "less", "swapped"])
def test_the_digest_changes_with_the_data(root: Path, change: str) -> None:
    before = taken(root)["sha256"]
    images, masks = root / "train" / "images", root / "train" / "masks"
    name, other = "col00000_row00002.tif", "col00001_row00003.tif"
    if change in ("pixel", "mask"):
        path = (images if change == "pixel" else masks) / name
        array = tifffile.imread(path)
        array[3, 5] = 1 - array[3, 5]
        tifffile.imwrite(
            path, array, photometric="minisblack", **({"planarconfig": "contig"} if array.ndim == 3 else {})
        )
    else:
        for folder in (images, masks):
            if change == "name":
                (folder / name).rename(folder / "col00009_row00009.tif")
            elif change == "less":
                (folder / name).unlink()
            else:
                (folder / name).rename(folder / "x")
                (folder / other).rename(folder / name)
                (folder / "x").rename(folder / other)
    assert taken(root)["sha256"] != before


def test_the_digest_of_images_is_that_of_names_and_pixels_alone(root: Path, tmp_path: Path) -> None:
    def digest(folder: Path) -> str:
        dataset = Dataset.from_images(folder)
        return images_digest(load(dataset))

    copy = Path(shutil.copytree(root / "test" / "images", tmp_path / "copy"))
    assert digest(copy) == digest(root / "test")
    path = sorted(copy.iterdir())[0]
    image = tifffile.imread(path)
    image[0, 0, 0] += 0.1
    tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig")
    assert digest(copy) != digest(root / "test")
