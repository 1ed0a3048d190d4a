"""Real tiles of MMLS as published by the authors and by the challenge; skipped where they are missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile

from marsls_keras.config import Data
from marsls_keras.data.decoded.load import examine, load
from marsls_keras.data.decoded.slope_check import slope_correlations, slope_problems
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.fingerprint import band_statistics
from marsls_keras.data.formats.tile import read_mask, read_shape, read_tile
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.normalization import Normalizer
from marsls_keras.data.splits import make_splits
from marsls_keras.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

SLOPE, THERMAL = 4, 5
STORED = [0, 1, 2, 3, 5, 4, 6]
"""Positions of the canonical bands in the files of mmls_v1."""


TOLERANCE = np.array([1e-6, 1e-6, 1e-6, 1e-6, 1e-6, 0.5 / 254 + 1e-6, 0.5 / 254 + 1e-6])
"""Tolerance between tiles of the challenge and of mmls_v1: the challenge stores thermal and gray as integers."""


@pytest.fixture(scope="module")
def tiles(real_data: Path) -> Tiles:
    return load(Dataset.open(real_data / "mmls_v1"))


@pytest.fixture(scope="module")
def at(tiles: Tiles) -> dict[tuple[int, int], int]:
    """Return the position of each cell's tile among the tiles."""
    return {ref.cell: i for i, ref in enumerate(tiles.refs) if ref.cell is not None}


@pytest.fixture(scope="module")
def challenge(real_data: Path) -> Dataset:
    return Dataset.open(real_data / "challenge_layout")


def test_the_published_tiles(tiles: Tiles, at: dict) -> None:
    assert {split: sum(ref.split == split for ref in tiles.refs) for split in ("train", "val", "test")} == {
        "train": 275,
        "val": 31,
        "test": 0,
    }
    assert tiles.release == "mmls_v1" and len(at) == 306 and len(set(tiles.hashes)) == 306
    assert tiles.images.shape == (306, 128, 128, 7)
    assert tiles.images.min() >= 0 and tiles.images.max() <= 1
    gaps = {
        ref.cell: int((~valid).sum()) for ref, valid in zip(tiles.refs, tiles.valid, strict=True) if not valid.all()
    }
    assert gaps.keys() == {(10, 1), (11, 1), (12, 1), (13, 1), (14, 1), (14, 2)} and sum(gaps.values()) == 8865
    assert 0.87 < tiles.images[..., THERMAL].min() and tiles.images[..., THERMAL].max() < 0.99
    assert set(np.unique(tiles.masks)) == {0, 1}
    assert 0.05 <= tiles.masks.mean((1, 2)).min() < 0.06
    rows = {split: [ref.cell[0] for ref in tiles.refs if ref.split == split and ref.cell] for split in ("train", "val")}
    assert {split: (min(found), max(found)) for split, found in rows.items()} == {"train": (7, 27), "val": (28, 29)}


def test_pixels_are_those_that_tifffile_and_gdal_see(tiles: Tiles) -> None:
    for i in (0, 100, 305):
        ref = tiles.refs[i]
        assert read_shape(ref.image) == (128, 128, 7)
        with tifffile.TiffFile(ref.image) as tif:
            assert len(tif.pages) == 128  # every page is an image row of 128 x 7
            stored = np.stack([page.asarray() for page in tif.pages])[..., STORED]
            np.testing.assert_array_equal(tiles.images[i][tiles.valid[i]], stored[tiles.valid[i]])
        for row in (0, 77, 127):
            with rasterio.open(f"GTIFF_DIR:{row + 1}:{ref.image}") as page:
                np.testing.assert_array_equal(
                    tiles.images[i][row][tiles.valid[i][row]], page.read(1)[..., STORED][tiles.valid[i][row]]
                )
        np.testing.assert_array_equal(tiles.masks[i], tifffile.imread(str(ref.mask)))


def test_neighbours_continue_each_other(tiles: Tiles, at: dict) -> None:
    images = tiles.images
    right = [
        np.abs(images[i][:, -1] - images[at[r, c + 1]][:, 0]).mean() for (r, c), i in at.items() if (r, c + 1) in at
    ]
    below = [np.abs(images[i][-1] - images[at[r + 1, c]][0]).mean() for (r, c), i in at.items() if (r + 1, c) in at]
    inside = np.abs(np.diff(images[::5], axis=2)).mean()
    one, other = np.random.default_rng(0).integers(0, len(tiles), (2, 2000))
    unrelated = np.abs(images[one, :, -1] - images[other, :, 0]).mean()
    assert len(right) > 200 and len(below) > 200
    assert np.mean(right) == pytest.approx(0.021, abs=0.001) and np.mean(below) == pytest.approx(0.021, abs=0.001)
    assert inside == pytest.approx(0.021, abs=0.001)
    assert unrelated == pytest.approx(0.19, abs=0.01)
    assert max(*right, *below) < unrelated / 3


def test_training_and_validation_share_one_raster(tiles: Tiles, at: dict) -> None:
    assert {ref.raster for ref in tiles.refs} == {"base"}
    crossing = [
        (i, at[r + 1, c])
        for (r, c), i in at.items()
        if (r + 1, c) in at and tiles.refs[i].split != tiles.refs[at[r + 1, c]].split
    ]
    assert crossing
    assert np.mean([np.abs(tiles.images[i][-1] - tiles.images[j][0]).mean() for i, j in crossing]) < 0.04


def test_challenge_tiles_are_the_same_picture(tiles: Tiles, at: dict, challenge: Dataset) -> None:
    read, problems = examine(challenge.tiles)
    assert read is not None and len(read) == 12 and read.release == "challenge"
    # Thermal and gray are stored as integers up to 254 in the challenge; other bands agree to float32 precision.
    tolerance = TOLERANCE
    for i, ref in enumerate(read.refs):
        assert ref.cell is not None
        published = at[ref.cell]
        difference = np.abs(read.images[i] - tiles.images[published])
        with rasterio.open(ref.image) as file:
            known = file.read(2) != np.finfo(np.float32).min  # slope
            assert file.count == 7 and "Mars" in file.crs.to_wkt()
        assert (difference[known] <= tolerance).all()
        np.testing.assert_array_equal(read.valid[i], known)
        np.testing.assert_array_equal(read.masks[i], tiles.masks[published])
        filled = read.images[i][~known]
        assert filled.shape[0] in (0, 256, 384) and (filled >= 0).all() and (filled <= 1).all()
    assert len(problems) == 6 and {problem.kind for problem in problems} == {"no-data"}
    assert [(~valid).sum() for valid in read.valid] == [0, 384, 0, 256, 0, 384, 0, 256, 0, 384, 0, 256]


def test_truncated_published_tiles_are_refused(tmp_path: Path, tiles: Tiles, challenge: Dataset) -> None:
    for ref in (tiles.refs[0], challenge.tiles[1]):
        assert ref.mask is not None
        for source, read in ((ref.image, read_tile), (ref.mask, read_mask)):
            content = source.read_bytes()
            for end in np.linspace(0, len(content) - 200, 15).astype(int):
                cut = tmp_path / source.name
                cut.write_bytes(content[:end])
                with pytest.raises(InputError, match=source.name):
                    read(cut)


def test_blocks(tiles: Tiles, at: dict) -> None:
    splits = make_splits(tiles, Data(), seed=0)
    folds = np.array([tile["fold"] for tile in splits.tiles])
    assert len(splits.tiles) == 306 and np.bincount(folds).min() >= 50
    ratios = tiles.masks.mean((1, 2))
    for fold in range(5):
        assert ratios[folds == fold].mean() == pytest.approx(ratios.mean(), abs=0.02)
    for (row, column), i in at.items():
        for cell in ((row, column + 1), (row + 1, column)):
            if cell in at and (cell[0] // 2, cell[1] // 2) == (row // 2, column // 2):
                assert folds[i] == folds[at[cell]]


def test_regions(tiles: Tiles) -> None:
    folds = np.array([tile["fold"] for tile in make_splits(tiles, Data(cv="geographic"), seed=0).tiles])
    columns = np.array([ref.cell[1] for ref in tiles.refs if ref.cell])
    assert np.abs(np.bincount(folds) - 306 / 5).max() <= 4
    for fold in range(4):
        assert columns[folds == fold].max() // 2 <= columns[folds == fold + 1].min() // 2


def test_normalised_tiles_of_both_releases_agree(tiles: Tiles, at: dict, challenge: Dataset) -> None:
    normalizer = Normalizer.fit(tiles.images[:275:5], Data(), valid=tiles.valid[:275:5])
    ref = challenge.tiles[0]
    assert ref.cell is not None
    ours, theirs = (normalizer.apply(image[None]) for image in (read_tile(ref.image).image, tiles.images[at[ref.cell]]))
    assert (np.abs(ours - theirs) <= TOLERANCE / normalizer.std + 1e-4).all()


def test_statistics_of_thermal_are_those_of_its_data(tiles: Tiles) -> None:
    # The fifth band as stored.
    files = [tifffile.imread(ref.image)[..., 4].astype(np.float64) for ref in tiles.refs]
    known = np.concatenate([band[band != 0] for band in files])
    assert (known.mean(), known.std()) == (pytest.approx(0.895, abs=5e-4), pytest.approx(0.010, abs=5e-4))
    normalizer = Normalizer.fit(tiles.images, Data(), valid=tiles.valid)
    assert normalizer.mean is not None and normalizer.std is not None
    assert normalizer.mean[THERMAL] == pytest.approx(known.mean(), rel=1e-9) and normalizer.std[
        THERMAL
    ] == pytest.approx(known.std(), rel=1e-9)
    assert band_statistics(tiles.images, tiles.bands, tiles.valid)["thermal"]["std"] == pytest.approx(
        known.std(), abs=1e-6
    )


def test_slope_follows_the_gradient(tiles: Tiles, real_data: Path) -> None:
    found = slope_correlations(tiles)
    assert found["slope"] == pytest.approx(0.96, abs=0.01) and abs(found["thermal"]) < 0.3
    assert slope_problems(found) == []
    read, _ = examine(Dataset.open(real_data / "mmls_v1").tiles[::10], release="mmls_v2")  # the names as documented
    assert read is not None
    (problem,) = slope_problems(slope_correlations(read))
    assert problem.severity == "warning" and "slope and thermal look exchanged" in problem.message


def test_the_areas_of_mmls_v1_are_west_and_east(tiles: Tiles) -> None:
    splits = make_splits(tiles, Data(cv="areas"), seed=0)
    columns = {ref.id: ref.cell[1] for ref in tiles.refs if ref.cell is not None}
    sides = [{columns[i] < 35 for i in splits.held_out(k)} for k in range(splits.folds)]
    assert splits.folds == 2 and sorted(map(len, map(splits.held_out, range(2)))) == [135, 171]
    assert sorted(side for (side,) in sides) == [False, True]
