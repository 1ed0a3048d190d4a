"""The tile grid compared with a raster stitched pixel by pixel."""

import numpy as np
import pytest

from marsls_keras.data import Dataset
from marsls_keras.data.decoded.load import load
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.data.index.dataset import TileRef

HEIGHT, WIDTH = 3, 4


def refs(*places: tuple[str, tuple[int, int] | None]) -> list[TileRef]:
    return [TileRef(f"train/{i}", None, None, "train", raster, cell) for i, (raster, cell) in enumerate(places)]


def coded(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return pixels that encode their tile (from 1 on), row and column."""
    return np.stack(np.meshgrid(np.arange(1, number + 1), np.arange(height), np.arange(width), indexing="ij"), -1)


# Two rasters with overlapping cells and holes, and two tiles without a cell.
TILES = refs(
    *[
        ("base", (5, 2)),
        ("base", (5, 3)),
        ("base", (6, 3)),
        ("base", (8, 4)),
        ("test", (5, 2)),
        ("test", (6, 2)),
        ("base", None),
    ],
    *[("base", None), ("base", (7, 2))],
)


def around(mosaic: TileGrid, of: list[TileRef], i: int, margin: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what is read around a tile, and the expected content computed from the cells alone."""
    top, left = mosaic.origin(i)
    read = mosaic.read(coded(len(of)), top - margin, left - margin, HEIGHT + 2 * margin, WIDTH + 2 * margin, fill=-1)
    expected = np.full_like(read, -1)
    for k, other in enumerate(of):
        if k == i or (of[i].cell and other.cell and other.raster == of[i].raster):
            down, right = np.subtract(other.cell or (0, 0), of[i].cell or (0, 0)) * (HEIGHT, WIDTH)
            for row in range(HEIGHT):
                for column in range(WIDTH):
                    y, x = margin + down + row, margin + right + column
                    if 0 <= y < len(expected) and 0 <= x < expected.shape[1]:
                        expected[y, x] = k + 1, row, column
    return read, expected


@pytest.mark.parametrize("i", range(len(TILES)))
@pytest.mark.parametrize("margin", [0, 1, 5, 9])
def test_around_a_tile_lie_its_neighbours_and_nothing_of_other_rasters(i, margin):
    read, expected = around(TileGrid.of(TILES, HEIGHT, WIDTH, reach=24), TILES, i, margin)
    assert np.array_equal(read, expected)


@pytest.mark.parametrize("reach", [1, 4, 7, 30])
def test_no_window_up_to_the_reach_sees_two_rasters_or_leaves_the_plane(reach):
    mosaic = TileGrid.of(TILES, HEIGHT, WIDTH, reach)
    group = {i: i if ref.cell is None else ref.raster for i, ref in enumerate(TILES)}
    rows, columns = np.multiply(mosaic.table.shape, (HEIGHT, WIDTH))
    for top, left in mosaic.origins:
        for y in (top - reach + 1, top + HEIGHT - 1):
            for x in (left - reach + 1, left + WIDTH - 1):
                assert len({group[k] for k in mosaic.tiles_in(y, x, reach, reach)}) == 1
                assert 0 <= y and y + reach <= rows and 0 <= x and x + reach <= columns


def test_a_rectangle_may_reach_beyond_the_plane():
    mosaic = TileGrid.of(TILES[:2], HEIGHT, WIDTH, reach=2)
    height, width = np.multiply(mosaic.table.shape, (HEIGHT, WIDTH))
    whole = mosaic.read(coded(2), 0, 0, height, width)
    assert np.array_equal(mosaic.read(coded(2), -50, -60, height + 100, width + 120)[50:-50, 60:-60], whole)
    assert (whole[..., 0] > 0).sum() == 2 * HEIGHT * WIDTH
    for corner in ((-90, 0), (0, -90), (500, 0), (0, 500)):
        assert (mosaic.read(coded(2), *corner, 5, 6, fill=7) == 7).all() and not len(mosaic.tiles_in(*corner, 5, 6))


def test_reading_keeps_type_and_trailing_axes():
    mosaic = TileGrid.of(TILES, HEIGHT, WIDTH)
    masks = np.ones((len(TILES), HEIGHT, WIDTH), np.uint8)
    top, left = mosaic.origin(3)
    assert mosaic.read(masks, top, left, 2, 2).dtype == np.uint8 and mosaic.read(masks, top, left, 2, 2).shape == (2, 2)
    assert mosaic.read(coded(len(TILES)), top, left, 2, 5).shape == (2, 5, 3)


def test_wide_gaps_are_closed_up_so_that_scattered_tiles_need_no_large_table():
    scattered = refs(
        *[("base", (1000 * i, 70_000 - 900 * i)) for i in range(40)], ("base", (0, 70_002)), ("base", (2, 70_000))
    )
    mosaic = TileGrid.of(scattered, HEIGHT, WIDTH, reach=8)
    assert mosaic.table.size < 100_000
    for i in range(len(scattered)):
        read, expected = around(mosaic, scattered, i, 2 * WIDTH)
        assert np.array_equal(read, expected)


def test_two_tiles_in_one_cell_are_refused():
    with pytest.raises(ValueError, match="train/0"):
        TileGrid.of(refs(("base", (1, 1)), ("base", (1, 2)), ("base", (1, 1))), HEIGHT, WIDTH)


def test_the_area_of_a_window_is_the_number_of_its_published_pixels():
    mosaic = TileGrid.of(TILES, HEIGHT, WIDTH, reach=20)
    ones = np.ones((len(TILES), HEIGHT, WIDTH), np.uint8)
    generator = np.random.default_rng(0)
    side = generator.integers(1, 20, 300)
    tile = generator.integers(0, len(TILES), 300)
    top, left = (mosaic.origins[tile] + generator.integers(-10, 3, (300, 2))).T
    expected = [mosaic.read(ones, y, x, s, s).sum() for y, x, s in zip(top, left, side, strict=True)]
    assert np.allclose(mosaic.area(top, left, side), expected, atol=1e-9) and len(set(expected)) > 30


def test_tiles_apart_are_read_whole():
    mosaic = TileGrid.apart(5, HEIGHT, WIDTH)
    for i in range(5):
        assert np.array_equal(mosaic.read(coded(5), *mosaic.origin(i), HEIGHT, WIDTH), coded(5)[i])
        assert mosaic.tiles_in(*mosaic.origin(i), HEIGHT, WIDTH).tolist() == [i]


def test_the_real_tiles_continue_each_other(real_data):
    tiles = load(Dataset.open(real_data / "mmls_v1"))
    size = tiles.images.shape[1]
    mosaic = TileGrid.of(tiles.refs, size, size)
    assert set(mosaic.table[mosaic.table >= 0]) == set(range(306))
    across, inside = [], []
    for i in range(306):
        top, left = mosaic.origin(i)
        for turn, (down, right) in enumerate(((0, size), (size, 0))):
            pair = mosaic.read(
                tiles.images, top + down - bool(down), left + right - bool(right), *((size, 2), (2, size))[turn], np.nan
            )
            step = np.abs(np.diff(pair, axis=1 - turn)).mean()
            if np.isfinite(step):
                across.append(step)
                inside.append(np.abs(np.diff(tiles.images[i], axis=1 - turn)).mean())
    assert len(across) > 400
    # Unrelated tiles differ by 0.19.
    assert np.mean(across) == pytest.approx(np.mean(inside), rel=0.1) and np.mean(inside) < 0.03
