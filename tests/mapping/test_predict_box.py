"""Prediction of a raster against pixels, convolutions by SciPy, and the prediction of tiles cut from it."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.rasters import write_raster
from scipy.special import expit

from marsls_keras.bands.names import BANDS
from marsls_keras.config import Config
from marsls_keras.data.decoded.load import load
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.derived.derive import derive
from marsls_keras.data.formats.tile import read_tile
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.data.normalization import Normalizer
from marsls_keras.data.splits import Splits
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.member import Member
from marsls_keras.inference.sliding_window import corners, predict_tiles
from marsls_keras.mapping.canvas import read_canvas
from marsls_keras.mapping.lattice import Lattice
from marsls_keras.mapping.predict_box import Ensemble, predict_box
from marsls_keras.mapping.raster import Box, Raster, boxes
from marsls_keras.models import build_model
from marsls_keras.runs.run import Run

RNG = np.random.default_rng(0)
ALONE = Lattice(32, 32, 16, alone=True)
WINDOWS = Lattice(32, 64, 32, alone=False)
NO_NORMALIZATION = Normalizer(BANDS, None, None, None)


def member(kernel: int, normalizer: Normalizer = NO_NORMALIZATION, weights: list | None = None, run="a") -> Member:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((None, None, len(normalizer.bands)))
    model = keras.Model(inputs, keras.layers.Conv2D(1, kernel, padding="same", bias_initializer="ones")(inputs))
    if weights is not None:
        model.set_weights(weights)
    model.compile(jit_compile=False)
    config = Config.model_validate(
        {
            "model": {"options": {"base_filters": 2}},
            "data": {"bands": list(normalizer.bands)},
            "inference": {"batch_size": 16},
        }
    )
    return Member(Run(Path(run), config, Splits("blocks", 1, ()), {}), 0, model, normalizer)


def first_band() -> Member:
    """Return a network whose logit is the first band."""
    return member(1, weights=[np.eye(7)[:, :1].reshape(1, 1, 7, 1), np.zeros(1)])


def mapped(raster: Raster, ensemble: Ensemble, lattice: Lattice, side: int, uncertainty: bool = False) -> np.ndarray:
    """Predict a raster in boxes of a side, and return the whole (bands, H, W)."""
    whole = np.zeros((3 if uncertainty else 1, raster.height, raster.width), np.float32)
    bands = list(ensemble.members[0].run.config.data.bands)
    for box in boxes(raster.height, raster.width, side):
        canvas = read_canvas(raster, box, lattice, bands)
        found = predict_box(ensemble, canvas, box, raster, lattice, uncertainty)
        whole[:, box.top : box.top + box.height, box.left : box.left + box.width] = found
    return whole


def raster_of(path: Path, image: np.ndarray, **options) -> Raster:
    return Raster.open(write_raster(path, image.astype(np.float32), **options), "mmls_v2")


@pytest.mark.parametrize("lattice", [ALONE, WINDOWS, Lattice(32, 48, 24, alone=False)], ids=str)
@pytest.mark.parametrize("size", [(75, 101), (20, 45)], ids=str)
def test_every_pixel_comes_out_where_it_went_in(tmp_path, size, lattice):
    image = RNG.normal(size=(*size, 7))
    raster = raster_of(tmp_path / "a.tif", image)
    found = mapped(raster, Ensemble([first_band()], Decision(views="d4")), lattice, 64)
    assert np.abs(found[0] - expit(image[..., 0])).max() < 1e-6


@pytest.mark.parametrize("lattice", [ALONE, WINDOWS], ids=str)
def test_a_constant_stays_constant_and_a_ramp_a_ramp(tmp_path, lattice):
    ramp = np.linspace(-2, 2, 90) * np.ones((70, 1))
    for values in (np.full((70, 90), 0.3), ramp):
        raster = raster_of(tmp_path / "a.tif", np.repeat(values[..., None], 7, -1))
        found = mapped(raster, Ensemble([first_band()], Decision()), lattice, 64)
        assert np.abs(found[0] - expit(values)).max() < 3e-7


def cut(image: np.ndarray, side: int = 32, release: str = "mmls_v2") -> Tiles:
    """Cut an image into tiles of its grid."""
    rows, columns = image.shape[0] // side, image.shape[1] // side
    cells = [(r, c) for r in range(rows) for c in range(columns)]
    refs = tuple(TileRef(f"t/{r}_{c}", Path(f"{r}_{c}.tif"), None, "images", "a", (r, c)) for r, c in cells)
    images = np.stack([image[r * side :, c * side :][:side, :side] for r, c in cells]).astype(np.float32)
    blank, number = np.zeros(images.shape[:3], np.uint8), len(cells)
    return Tiles(refs, images, blank, blank == 0, ("",) * number, ((),) * number, release)


def put_together(tiles: np.ndarray, columns: int) -> np.ndarray:
    rows = len(tiles) // columns
    return np.concatenate([np.concatenate(list(tiles[r * columns : (r + 1) * columns]), 1) for r in range(rows)])


NORMALIZED = Normalizer(BANDS, None, (0.5,) * 7, (0.2,) * 7)


@pytest.mark.parametrize(
    ("lattice", "views"),
    [
        (Lattice(32, 32, 32, alone=True), ["identity", "rot90", "shift_8"]),
        (WINDOWS, ["identity@64/32", "rot90@64/32", "transpose@64/32"]),
        (Lattice(32, 48, 24, alone=False), ["identity@48/24"]),  # a stride that does not divide a tile
    ],
    ids=str,
)
def test_the_map_is_what_predict_finds_on_tiles(tmp_path, monkeypatch, lattice, views):
    image = RNG.uniform(0, 1, (96, 128, 7))
    network, tiles = member(5, NORMALIZED), cut(image)
    seen = [found.probability for found in predict_tiles(network, tiles, np.arange(12), views)]
    expected = put_together(np.mean(seen, 0), 4)
    from marsls_keras.view_sets import VIEW_SETS

    monkeypatch.setitem(VIEW_SETS, "some", tuple(view.partition("@")[0] for view in views))
    found = mapped(raster_of(tmp_path / "a.tif", image), Ensemble([network], Decision(views="some")), lattice, 64)
    assert np.abs(found[0] - expected).max() < 1e-6


@pytest.mark.parametrize("lattice", [Lattice(32, 32, 32, alone=True), WINDOWS], ids=str)
def test_terrain_is_computed_as_on_tiles(tmp_path, lattice):
    bands = ("dem", "roughness", "aspect_sin", "tpi_small", "hillshade")
    image = RNG.uniform(0, 1, (96, 128, 7))
    tiles = derive(cut(image), bands)
    carried = len(Normalizer(bands, None, None, None).directions.carried)
    network = member(3, Normalizer(bands, None, (0.1,) * (carried + 1), (0.7,) * (carried + 1)))
    view = "rot90" if lattice.alone else "rot90@64/32"
    (seen,) = predict_tiles(network, tiles, np.arange(12), [view])
    decision = Decision(views="rotations")
    (all_views,) = [
        np.mean([s.probability for s in predict_tiles(network, tiles, np.arange(12), names)], 0)
        for names in [[v + view.removeprefix("rot90") for v in ("identity", "rot90", "rot180", "rot270")]]
    ]
    found = mapped(raster_of(tmp_path / "a.tif", image), Ensemble([network], decision), lattice, 64)
    assert np.abs(found[0] - put_together(all_views, 4)).max() < 1e-5
    assert np.abs(found[0] - put_together(seen.probability, 4)).max() > 1e-4  # the views differ


@pytest.mark.parametrize("percentiles", [None, (5.0, 95.0)])
def test_gaps_and_percentiles_are_those_of_the_tile_at_the_same_place(tmp_path, percentiles):
    image = RNG.uniform(0.1, 0.9, (64, 96, 7))
    image[20:40, 30:50] = np.nan  # across tiles
    image[:, 70:, 4] = np.nan  # one band
    raster = raster_of(tmp_path / "a.tif", image)
    network = member(3, replace(NORMALIZED, percentiles=percentiles))
    found = mapped(raster, Ensemble([network], Decision()), Lattice(32, 32, 32, alone=True), 64)[0]
    known = ~np.isnan(image).any(-1)
    assert np.array_equal(~np.isnan(found), known)
    for top in (0, 32):
        for left in (0, 32, 64):
            path = write_raster(tmp_path / "tile.tif", image[top : top + 32, left : left + 32].astype(np.float32))
            tile = read_tile(path, "mmls_v2")
            (seen,) = predict_tiles(network, replace(cut(image[:32, :32]), images=tile.image[None]), [0], ["identity"])
            there = known[top : top + 32, left : left + 32]
            part = found[top : top + 32, left : left + 32]
            assert np.abs(part - seen.probability[0])[there].max(initial=0) < 1e-6


def test_where_no_tile_would_be_windows_see_nothing(tmp_path):
    image = RNG.uniform(0.1, 0.9, (96, 96, 7))
    image[32:64, 32:64] = np.nan
    tiles = cut(image).subset([0, 1, 2, 3, 5, 6, 7, 8])
    network = member(9, NORMALIZED)
    (seen,) = predict_tiles(network, tiles, np.arange(8), ["identity@64/32"])
    raster = raster_of(tmp_path / "a.tif", image)
    found = mapped(raster, Ensemble([network], Decision()), WINDOWS, 64)[0]
    expected = put_together(np.insert(seen.probability, 4, np.nan, 0), 3)
    assert np.allclose(found, expected, atol=1e-6, equal_nan=True)


def test_runs_are_weighted_and_uncertainty_is_theirs(tmp_path):
    image = RNG.normal(size=(40, 50, 7))
    logits = image[..., 0], 2 * image[..., 1] + 1
    kernels = np.eye(7)[:, :1], 2 * np.eye(7)[:, 1:2]
    networks = [
        member(1, weights=[kernel.reshape(1, 1, 7, 1), np.full(1, bias)], run=name)
        for kernel, bias, name in zip(kernels, (0.0, 1.0), "ab", strict=True)
    ]
    raster = raster_of(tmp_path / "a.tif", image)
    for averaging, mean in (
        ("probability", 0.25 * expit(logits[0]) + 0.75 * expit(logits[1])),
        ("logit", expit(0.25 * np.clip(logits[0], -7.6, 7.6) + 0.75 * np.clip(logits[1], -7.6, 7.6))),
    ):
        decision = Decision(views="flips", weights={"a": 0.25, "b": 0.75}, averaging=averaging)
        found = mapped(raster, Ensemble(networks, decision), ALONE, 32, uncertainty=True)
        p, q = expit(logits[0]), expit(logits[1])
        variance = 0.25 * p**2 + 0.75 * q**2 - (0.25 * p + 0.75 * q) ** 2
        bits = -mean * np.log2(mean) - (1 - mean) * np.log2(1 - mean)
        for band, expected in zip(found, (mean, variance, bits), strict=True):
            assert np.abs(band - expected).max() < (2e-3 if averaging == "logit" else 1e-5)


@pytest.mark.parametrize(("window", "stride"), [(64, 32), (64, 16), (96, 32), (48, 20), (40, 33)])
def test_windows_lie_where_predict_puts_them(window, stride):
    tiles = cut(np.zeros((160, 192, 7)))
    grid = TileGrid.of(tiles.refs, 32, 32, window)
    lattice = Lattice(32, window, stride, alone=False)
    expected = corners(grid, np.arange(30), window, stride) - grid.origins[0]
    assert np.array_equal(lattice.places(Box(0, 0, 160, 192), 160, 192), expected)


@pytest.mark.parametrize("size", [20, 32, 33, 64, 75])
def test_windows_alone_stay_inside_and_see_every_pixel(size):
    starts = ALONE.starts(0, size, size)
    seen = np.zeros(max(size, 32), int)
    for start in starts:
        seen[start : start + 32] += 1
        assert start >= 0 and start + 32 <= max(size, 32)
    assert seen.min() >= 1 and sorted(set(starts)) == starts


def test_real_tiles_put_together_map_to_what_predict_finds(tmp_path, real_data):
    dataset = Dataset.open(real_data / "mmls_v1")
    at = {ref.cell: ref for ref in dataset.tiles if ref.split == "train"}
    row, column = next((r, c) for r, c in sorted(at) if all((r + i, c + j) in at for i in range(2) for j in range(3)))
    chosen = tuple(at[row + i, column + j] for i in range(2) for j in range(3))
    tiles = load(Dataset(dataset.root, chosen))
    keras.utils.set_random_seed(1)
    options = {"base_filters": 2, "depth": 1}
    config = Config.model_validate({"model": {"options": options}, "inference": {"batch_size": 8}})
    model = build_model(config.model.name, BANDS, **options)
    model.compile(jit_compile=False)
    run = Run(Path("none"), config, Splits("blocks", 1, ()), {})
    network = Member(run, 0, model, Normalizer.fit(tiles.images, config.data))
    image = put_together(tiles.images, 3)
    path = write_raster(tmp_path / "a.tif", image, names=BANDS)
    raster = Raster.open(path, family="mmls_v1")
    for lattice, view in ((Lattice(128, 128, 128, alone=True), ""), (Lattice(128, 256, 128, alone=False), "@256/128")):
        (seen,) = predict_tiles(network, tiles, np.arange(6), [f"identity{view}"])
        found = mapped(raster, Ensemble([network], Decision()), lattice, 256)[0]
        assert np.abs(found - put_together(seen.probability, 3)).max() < 1e-5
