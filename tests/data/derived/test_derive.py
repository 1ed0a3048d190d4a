"""Derived bands of decoded tiles: terrain bands equal those of the whole raster, however the tiles are read."""

from pathlib import Path

import numpy as np
import pytest

from marsls_keras.bands.derived import DERIVED, LATE
from marsls_keras.bands.names import BANDS, expand_bands
from marsls_keras.config import Data
from marsls_keras.data import Dataset
from marsls_keras.data.decoded.disk_cache import DiskImages
from marsls_keras.data.decoded.load import load
from marsls_keras.data.derived.derive import continued, derive
from marsls_keras.data.derived.terrain import terrain_bands
from marsls_keras.data.load_folder import load_folder, load_with_neighbours
from marsls_keras.data.normalization import Normalizer
from marsls_keras.data.pipeline.batches import evaluation_batches
from marsls_keras.datasets import RELEASES
from marsls_keras.errors import InputError

TERRAIN = [name for name in DERIVED if DERIVED[name].sources == ("dem",) and name not in LATE]
SIZE = 32  # twice the largest reach, so that both sides are equally near from the centre of a missing tile
MISSING = (1, 2)


@pytest.fixture
def picture() -> np.ndarray:
    """Return the heights of a raster of 3 x 4 tiles, float32 in [0, 1]."""
    y, x = np.meshgrid(np.linspace(0, 3, 3 * SIZE), np.linspace(0, 4, 4 * SIZE), indexing="ij")
    noise = np.random.default_rng(0).normal(0, 0.003, y.shape)
    return (0.5 + 0.2 * np.sin(2 * x + y) + 0.1 * np.cos(3 * y - x) + noise).astype(np.float32)


@pytest.fixture
def root(tmp_path, picture, write_image, write_mask) -> Path:
    """Return a data folder with all tiles of the raster but `MISSING`, in train and val."""
    rng = np.random.default_rng(1)
    for row in range(3):
        for column in range(4):
            if (row, column) == MISSING:
                continue
            split, name = ("train", "val")[row == 2], f"col{column:05d}_row{row:05d}.tif"
            image = rng.uniform(0, 1, (SIZE, SIZE, 7)).astype(np.float32)
            image[..., 3] = picture[row * SIZE : (row + 1) * SIZE, column * SIZE : (column + 1) * SIZE]
            write_image(tmp_path / "data" / split / "images" / name, image)
            write_mask(tmp_path / "data" / split / "masks" / name, rng.random((SIZE, SIZE)) > 0.5)
    return tmp_path / "data"


def of_the_picture(picture, names, reach=16):
    """Return bands of the whole raster, with the missing tile and the surroundings extrapolated."""
    metres = np.pad(picture.astype(np.float64) * 12822, reach, constant_values=np.nan)
    top, left = (reach + place * SIZE for place in MISSING)
    metres[top : top + SIZE, left : left + SIZE] = np.nan
    return {
        name: band[reach:-reach, reach:-reach] for name, band in terrain_bands(continued(metres), 232.0, names).items()
    }


@pytest.mark.parametrize("names", [TERRAIN, ["tpi_small"]])  # other requested bands must not matter
def test_terrain_bands_of_tiles_are_those_of_the_picture(root, picture, names):
    tiles = derive(load(Dataset.open(root)), ["all", *names])
    assert tiles.bands == (*BANDS, *names)
    for name, whole in of_the_picture(picture, names).items():
        for ref, image in zip(tiles.refs, tiles.images, strict=True):
            row, column = ref.cell
            expected = whole[row * SIZE : (row + 1) * SIZE, column * SIZE : (column + 1) * SIZE]
            found = image[..., tiles.bands.index(name)]
            np.testing.assert_allclose(
                found, expected, rtol=1e-5, atol=1e-6 * max(1, np.abs(whole).max()), err_msg=f"{name} {ref.id}"
            )


def test_heights_are_continued_through_the_nearest_known_pixel():
    heights = np.full((5, 6), np.nan)
    heights[1:4, 1:5] = [[10, 11, 13, 20], [20, 22, 21, 30], [50, 40, 45, 41]]
    found = continued(heights)
    assert (
        (found[1:4, 1:5] == heights[1:4, 1:5]).all()
        and found[0, 2] == 0
        and found[2, 5] == 39
        and found[4, 5] == 2 * 41 - 21
    )
    assert continued(np.array([[7.0, np.nan, np.nan]])).tolist() == [[7, 7, 7]]  # no pixel to mirror


def test_a_tile_alone_that_is_a_plane_has_no_border(root):
    tiles = load(Dataset.open(root)).subset([0])
    y, x = np.mgrid[:SIZE, :SIZE]
    tiles.images[0, ..., 3] = 0.2 + 0.01 * x + 0.004 * y
    alone = derive(tiles, TERRAIN)
    for name in TERRAIN:
        band = alone.images[0, ..., alone.bands.index(name)]
        np.testing.assert_allclose(
            band, band[16, 16], atol=2e-3 if "tpi" in name or band[16, 16] > 2 else 1e-5, err_msg=name
        )
    assert alone.images[0, ..., alone.bands.index("aspect_sin")].mean() == pytest.approx(
        -1 / np.hypot(1, 0.4), abs=1e-5
    )


def test_without_its_neighbours_a_tile_has_other_borders_and_the_same_middle(root, picture):
    together, names = derive(load(Dataset.open(root)), TERRAIN), TERRAIN
    alone = derive(together.subset([0]), [])
    assert alone.bands == together.bands
    first = load(Dataset.open(root)).subset([0])
    apart = derive(first, names)
    near = [
        np.abs(apart.images[0] - together.images[0])[..., apart.bands.index(name)]
        for name in ("profile_curvature", "tpi_small")
    ]
    assert near[0][:, -1].max() > 0 and near[0][:-1, :-1].max() == 0
    assert near[1][:, -4:].max() > 1e-3 and near[1][:-4, :-4].max() < 1e-3


def test_the_sources_and_all_else_of_the_tiles_stay(root):
    before = load(Dataset.open(root))
    after = derive(before, ["red", "canny", "gaussian_gray"])
    assert after.bands == (*BANDS, "canny", "gaussian_gray")
    np.testing.assert_array_equal(after.images[..., :7], before.images)
    np.testing.assert_array_equal(after.masks, before.masks)
    assert after.hashes == before.hashes and after.refs == before.refs
    assert derive(before, ["all", "dem"]) is before
    assert after.subset([2, 0]).bands == after.bands


def test_partners_and_what_late_bands_need_come_along(root):
    tiles = load(Dataset.open(root))
    assert derive(tiles, ["aspect_sin"]).derived == ("aspect_sin", "aspect_cos")
    assert set(derive(tiles, ["hillshade"]).derived) == {"normal_rows", "normal_columns", "normal_up"}


def test_some_tiles_with_their_neighbours_are_as_all_of_them(root):
    dataset, bands = Dataset.open(root), ["all", "tpi_large", "aspect_cos"]
    together = derive(load(dataset), bands)
    for chosen in (dataset.tiles[:1], dataset.tiles[3:6], dataset.tiles[-2:]):
        some = load_with_neighbours(dataset, chosen, bands, "auto", None)
        assert some.refs == chosen and some.bands == together.bands
        index = [together.refs.index(ref) for ref in chosen]
        np.testing.assert_array_equal(some.images, together.images[index])


@pytest.mark.parametrize("sight", [1, 2])
def test_tiles_in_sight_follow_without_their_masks_and_with_the_same_bands(root, sight):
    dataset, bands = Dataset.open(root), ["all", "tpi_large"]
    together = derive(load(dataset), bands)
    chosen = dataset.tiles[:1]
    some = load_with_neighbours(dataset, chosen, bands, "auto", None, sight=sight)
    near = [
        ref
        for ref in dataset.tiles[1:]
        if ref.cell is not None
        and ref.raster == chosen[0].raster
        and max(abs(ref.cell[0] - chosen[0].cell[0]), abs(ref.cell[1] - chosen[0].cell[1])) <= sight
    ]
    assert near and some.refs[:1] == chosen and [ref.id for ref in some.refs[1:]] == [ref.id for ref in near]
    assert all(ref.mask is None for ref in some.refs[1:]) and not some.masks[1:].any() and some.masks[0].any()
    np.testing.assert_array_equal(some.images, together.images[[together.refs.index(ref) for ref in (*chosen, *near)]])


def test_tiles_on_disk_get_the_same_bands(root, tmp_path, monkeypatch):
    monkeypatch.setenv("MARSLS_CACHE", str(tmp_path / "cache"))
    bands = ["all", "tpi_small", "hillshade", "min_max_red"]
    held = load_folder(root, Data(bands=bands))
    for _ in range(2):  # computed first, then read from the cache
        kept = load_folder(root, Data(bands=bands, cache="disk"))
        assert isinstance(kept.images, DiskImages) and kept.bands == held.bands and kept.hashes == held.hashes
        np.testing.assert_array_equal(kept.images[np.arange(len(kept))], held.images)
        np.testing.assert_array_equal(kept.masks, held.masks)
    other = load_folder(root, Data(bands=["all", "roughness"], cache="disk"))
    assert other.bands == (*BANDS, "roughness")


@pytest.mark.parametrize(
    "names,message",
    [
        (["all", "ndvi"], "data.bands: ndvi is derived from nir, and the tiles have red, green, blue, dem"),
        (["nbr"], "nbr is derived from nir, swir2"),
        (["nir"], "the tiles have no band nir. They have red"),
    ],
)
def test_a_band_whose_source_the_tiles_lack_is_refused(root, names, message):
    with pytest.raises(InputError, match=message):
        derive(load(Dataset.open(root)), names)


def test_tiles_without_heights_have_no_terrain():
    with pytest.raises(InputError, match="aspect_sin is derived from dem, and the tiles have red, green, blue."):
        expand_bands(["all", "aspect_sin"], RELEASES["bijie"].bands)
    assert "ndvi" in expand_bands(["all", "ndvi", "tpi_small"], RELEASES["landslide4sense"].bands)


def test_the_terrain_of_real_tiles_has_no_step_at_their_borders(real_data):
    tiles = load_folder(real_data / "mmls_v1", Data(bands=["all", "tpi_large", "profile_curvature"]))
    at = {(ref.raster, *ref.cell): i for i, ref in enumerate(tiles.refs)}
    pairs = [
        (i, at[raster, row, column + 1]) for (raster, row, column), i in at.items() if (raster, row, column + 1) in at
    ]
    assert len(pairs) > 100
    left, right = (tiles.images[[pair[side] for pair in pairs]] for side in (0, 1))
    for name in ("tpi_large", "profile_curvature"):
        band = tiles.bands.index(name)
        across = np.abs(right[:, :, 0, band] - left[:, :, -1, band]).mean()
        within = np.abs(np.diff(left[..., band], axis=2)).mean()
        assert across < 1.2 * within, name


@pytest.mark.parametrize("percentiles", [None, (1, 99)])
def test_the_network_sees_the_same_from_disk(root, tmp_path, monkeypatch, percentiles):
    monkeypatch.setenv("MARSLS_CACHE", str(tmp_path / "cache"))
    bands = ["all", "aspect_sin", "hillshade", "tpi_small"]
    held, kept = (load_folder(root, Data(bands=bands, cache=cache)) for cache in ("memory", "disk"))
    config = Data(bands=bands, normalization={"percentiles": percentiles})
    normalizer = Normalizer.fit(kept.images, config, kept.bands)
    seen = []
    for tiles in (held, kept):
        inputs = normalizer.inputs(tiles.images, tiles.bands)
        batches = evaluation_batches(inputs, tiles.masks, batch_size=4, finish=normalizer.assemble)
        seen.append(np.concatenate([image for image, _, _ in batches.as_numpy_iterator()]))
    assert isinstance(kept.images, DiskImages) and seen[0].shape[-1] == 10
    np.testing.assert_array_equal(*seen)
