"""Prediction across tile borders against windows of the assembled raster, predicted one by one."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.ndimage import correlate

from marsls_keras.bands.names import BANDS
from marsls_keras.config import Config
from marsls_keras.data.decoded.disk_cache import DiskImages
from marsls_keras.data.decoded.load import load
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.data.normalization import Normalizer
from marsls_keras.data.splits import Splits
from marsls_keras.errors import InputError
from marsls_keras.inference.member import Member, predict_views
from marsls_keras.inference.sliding_window import blend, corners, predict_tiles, stitchable
from marsls_keras.models import build_model
from marsls_keras.runs.run import Run

SIDE = 32
CELLS = ((3, 4), (3, 5), (4, 4), (5, 5), (3, 6), (9, 9))  # the last one has no neighbour


def picture_tiles(cells=CELLS) -> Tiles:
    rng = np.random.default_rng(0)
    refs = tuple(TileRef(f"train/{r}_{c}", Path(f"{r}_{c}.tif"), None, "train", "mars", (r, c)) for r, c in cells)
    number = len(refs)
    images = rng.normal(size=(number, SIDE, SIDE, 7)).astype(np.float32)
    blank = np.zeros((number, SIDE, SIDE), np.uint8)
    return Tiles(refs, images, blank, blank == 0, ("",) * number, ((),) * number, "mmls_v1")


def member(kernel: int, batch_size: int = 4) -> Member:
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((None, None, 7)), keras.layers.Conv2D(1, kernel, padding="same", bias_initializer="ones")]
    )
    model.compile(jit_compile=False)
    config = Config.model_validate({"model": {"options": {"base_filters": 2}}, "inference": {"batch_size": batch_size}})
    return Member(Run(Path("none"), config, Splits("blocks", 1, ()), {}), 0, model, Normalizer(BANDS, None, None, None))


def stitched(tiles: Tiles, index, views, kernel=3, **options) -> list[np.ndarray]:
    return [seen.probability for seen in predict_tiles(member(kernel, **options), tiles, np.asarray(index), views)]


def by_hand(tiles: Tiles, turn, back, window: int, stride: int) -> np.ndarray:
    """Return all windows of the lattice on the padded raster, convolved by SciPy and blended: (N, SIDE, SIDE)."""
    cells = np.array([ref.cell for ref in tiles.refs]) - 3
    margin = -(-2 * window // SIDE) * SIDE
    extent = cells.max(0) * SIDE + SIDE + 2 * margin
    picture = np.zeros((*extent, 7))
    for image, (r, c) in zip(tiles.images, cells, strict=True):
        picture[margin + r * SIDE : margin + (r + 1) * SIDE, margin + c * SIDE : margin + (c + 1) * SIDE] = image
    kernel, bias = (np.asarray(w, np.float64) for w in member(3).model.get_weights())
    line = (1 - np.cos(2 * np.pi * (np.arange(window) + 0.5) / window)) / 2
    total, weights = np.zeros(extent), np.zeros(extent)
    first = (margin - (window - SIDE) // 2) % stride
    for top in range(first, extent[0] - window + 1, stride):
        for left in range(first, extent[1] - window + 1, stride):
            seen = turn(picture[top : top + window, left : left + window])
            logits = sum(correlate(seen[..., b], kernel[:, :, b, 0], mode="constant") for b in range(7)) + bias[0]
            area = slice(top, top + window), slice(left, left + window)
            total[area] += back(1 / (1 + np.exp(-logits))) * np.outer(line, line)
            weights[area] += np.outer(line, line)
    mean = total / np.maximum(weights, 1e-12)
    return np.stack([mean[margin + r * SIDE :, margin + c * SIDE :][:SIDE, :SIDE] for r, c in cells])


@pytest.mark.parametrize(("window", "stride"), [(64, 32), (64, 16), (96, 32), (32, 32), (48, 16)])
def test_windows_are_blended_as_by_hand_on_the_whole_picture(window, stride):
    tiles = picture_tiles(CELLS[:5])
    expected = by_hand(tiles, lambda x: x, lambda x: x, window, stride)
    found = stitched(tiles, range(5), [f"identity@{window}/{stride}"])[0]
    assert found.dtype == np.float32 and np.abs(found - expected).max() < 1e-5
    some = stitched(tiles, [3, 0], [f"identity@{window}/{stride}"])[0]
    assert np.abs(some - expected[[3, 0]]).max() < 1e-5


@pytest.mark.parametrize("view", ["rot90", "horizontal_flip", "transpose"])
def test_each_window_is_turned_and_turned_back(view):
    turn, back = {
        "rot90": (lambda x: np.rot90(x), lambda x: np.rot90(x, -1)),
        "horizontal_flip": (lambda x: x[:, ::-1], lambda x: x[:, ::-1]),
        "transpose": (lambda x: x.swapaxes(0, 1), lambda x: x.swapaxes(0, 1)),
    }[view]
    tiles = picture_tiles(CELLS[:4])
    found = stitched(tiles, range(4), [f"{view}@64/32"])[0]
    assert np.abs(found - by_hand(tiles, turn, back, 64, 32)).max() < 1e-5


def test_a_network_that_sees_single_pixels_says_the_same_in_every_window():
    tiles = picture_tiles()
    views = ["identity", "rot90", "identity@64/32", "rot180@64/32", "shift_8@64/32", "identity@32/32"]
    found = stitched(tiles, [5, 1, 2], views, kernel=1)
    alone = [seen.probability for seen in predict_views(member(1), tiles.images[[5, 1, 2]], ["identity"])][0]
    assert len(found) == 6 and all(np.abs(probability - alone).max() < 1e-6 for probability in found)


def test_windows_of_a_tile_each_are_the_tiles():
    tiles = picture_tiles()
    views = ["identity@32/32", "antitranspose@32/32"]
    alone = [seen.probability for seen in predict_views(member(5), tiles.images, ["identity", "antitranspose"])]
    assert np.abs(np.array(stitched(tiles, range(6), views, kernel=5)) - alone).max() < 1e-6


def test_what_a_neighbour_shows_counts_across_the_border_and_its_mask_never():
    tiles = picture_tiles()
    changed = tiles.images.copy()
    changed[1] += 5  # to the right of tile 0
    view = ["identity@64/32"]
    before, after = (
        stitched(tiles, [0, 5], view)[0],
        stitched(replace(tiles, images=changed, masks=None), [0, 5], view)[0],
    )
    difference = np.abs(after - before)
    assert difference[0, :, -1].min() > 1e-4 and difference[0, :, :-1].max() == 0 and difference[1].max() == 0


def test_batches_of_any_size_and_tiles_on_disk_give_the_same(tmp_path):
    tiles = picture_tiles()
    expected = stitched(tiles, range(6), ["rot90@64/32"])[0]
    assert np.abs(stitched(tiles, range(6), ["rot90@64/32"], batch_size=100)[0] - expected).max() < 1e-6
    for i, image in enumerate(tiles.images):
        (tmp_path / f"{i}.bin").write_bytes(image.tobytes())
    stored = replace(tiles, images=DiskImages([tmp_path / f"{i}.bin" for i in range(6)], (SIDE, SIDE, 7)))
    assert np.abs(stitched(stored, range(6), ["rot90@64/32"])[0] - expected).max() < 1e-6


@pytest.mark.parametrize(("window", "stride"), [(64, 32), (64, 64), (48, 20), (32, 1), (33, 33)])
def test_every_pixel_is_seen_and_only_windows_that_see_a_tile_are_taken(window, stride):
    tiles = picture_tiles()
    mosaic = TileGrid.of(tiles.refs, SIDE, SIDE, window)
    for index in ([0], [1, 3, 5]):
        seen = np.zeros((mosaic.table.shape[0] * SIDE, mosaic.table.shape[1] * SIDE), int)
        places = corners(mosaic, np.array(index), window, stride)
        assert len(np.unique(places, axis=0)) == len(places)
        for top, left in places:
            assert set(mosaic.tiles_in(top, left, window, window)) & set(index)
            seen[top : top + window, left : left + window] += 1
        least = (window // stride) ** 2
        for top, left in mosaic.origins[index]:
            assert seen[top : top + SIDE, left : left + SIDE].min() >= least


def test_weights_of_pixels_are_positive_and_highest_in_the_middle():
    weight = blend(64)
    assert (
        weight.min() > 0
        and weight[31, 31] == weight.max()
        and np.allclose(weight, weight.T)
        and np.allclose(weight, weight[::-1])
    )
    half = weight + np.roll(weight, 32, 0)
    assert np.allclose(half + np.roll(half, 32, 1), 1, atol=1e-6)  # at half the side apart they add up to one


def test_tiles_of_unknown_place_cannot_be_stitched():
    tiles = picture_tiles()
    lost = replace(tiles, refs=(*tiles.refs[:5], replace(tiles.refs[5], cell=None)))
    twice = replace(tiles, refs=(*tiles.refs[:5], replace(tiles.refs[5], cell=(3, 4))))
    assert stitchable(tiles.refs) and not stitchable(lost.refs) and not stitchable(twice.refs)
    with pytest.raises(InputError, match="do not tell where each of them lies"):
        stitched(lost, [0], ["identity@64/32"])


def test_a_window_that_the_network_cannot_take_is_refused():
    with pytest.raises(InputError, match="40"):
        stitched(picture_tiles(), [0], ["identity@40/20"])


def test_the_picture_is_never_put_together():
    tiles = picture_tiles([(i, i) for i in range(24)])  # touching at corners: a picture of 24 x 24 cells, 16.5 MB
    index = np.arange(len(tiles))
    network, view = member(1, batch_size=32), ["identity@64/32"]
    (before,) = predict_tiles(network, tiles, index, view)  # compiles, which is not to be traced
    tracemalloc.start()
    (seen,) = predict_tiles(network, tiles, index, view)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(seen.probability, before.probability) and peak < 8e6, f"{peak / 1e6:.1f} MB"


def test_windows_on_real_tiles(real_data):
    dataset = Dataset.open(real_data / "mmls_v1")
    chosen = [ref for ref in dataset.tiles if ref.cell and 14 <= ref.cell[0] < 17][:12]
    tiles = load(Dataset(dataset.root, tuple(chosen)))
    keras.utils.set_random_seed(1)
    options = {"base_filters": 2, "depth": 1}
    config = Config.model_validate({"model": {"options": options}, "inference": {"batch_size": 4}})
    model = build_model(config.model.name, BANDS, **options)
    model.compile(jit_compile=False)
    network = Member(
        Run(Path("none"), config, Splits("blocks", 1, ()), {}), 0, model, Normalizer.fit(tiles.images, config.data)
    )
    index = np.arange(len(tiles))
    ((alone,), (windows,), (beyond,)) = (
        [seen.probability for seen in predict_tiles(network, tiles, index, [view])]
        for view in ("rot90", "rot90@128/128", "rot90@256/128")
    )
    assert np.abs(windows - alone).max() < 1e-6 < np.abs(beyond - alone).max()


def test_windows_do_not_see_tiles_that_are_stretched_one_by_one():
    tiles, network = picture_tiles(), member(3)
    stretched = replace(network, normalizer=replace(network.normalizer, percentiles=(1.0, 99.0)))
    with pytest.raises(
        InputError,
        match=r"^View rot90@64 looks across the borders of tiles, but data.normalization.percentiles stretch",
    ):
        list(predict_tiles(stretched, tiles, np.arange(6), ["rot90@64/32"]))
    assert list(predict_tiles(stretched, tiles, np.arange(6), ["rot90"]))  # a tile alone is no window
