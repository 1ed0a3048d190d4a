"""Sampled windows of each step: order, positions, flips and rotations."""

import numpy as np
import pytest

from marsls_keras.config import Augmentation
from marsls_keras.data import Dataset
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.data.index.dataset import TileRef
from marsls_keras.data.pipeline.window_sampling import picture_windows, symmetries, tile_windows

STILL = Augmentation(horizontal_flip=0, vertical_flip=0, rot90=0)
SIZE = 8
NAMES = {
    "identity": (0, 0, 0),
    "left-right": (0, 0, 1),
    "up-down": (0, 1, 0),
    "half": (0, 1, 1),
    "quarter": (1, 0, 1),
    "three quarters": (1, 1, 0),
    "transposed": (1, 0, 0),
    "antitransposed": (1, 1, 1),
}


def grid(rows: int, columns: int, raster: str = "base", without=()) -> list[TileRef]:
    cells = [(r, c) for r in range(rows) for c in range(columns) if (r, c) not in without]
    return [TileRef(f"{raster}/{cell}", None, None, "train", raster, cell) for cell in cells]


def apart(number: int) -> list[TileRef]:
    return [TileRef(str(i), None, None, "train", "base", None) for i in range(number)]


def windows(refs, sides=(SIZE,), steps=200, batch_size=4, augmentation=STILL, seed=0):
    return picture_windows(TileGrid.of(refs, SIZE, SIZE, max(sides)), sides, steps, batch_size, augmentation, seed)


def drawn(number: int, **probabilities: float) -> dict[str, int]:
    """Return how often each symmetry occurs."""
    rows = symmetries(Augmentation(**probabilities), number, 5).tolist()
    counts = {name: rows.count(list(code)) for name, code in NAMES.items()}
    assert sum(counts.values()) == number
    return {name: count for name, count in counts.items() if count}


def test_all_eight_symmetries_come_about_equally_often_by_default():
    counts = drawn(1600)
    assert len(counts) == 8
    # Chi-square with 7 degrees of freedom: 24.3 is exceeded once in a thousand.
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 24.3


@pytest.mark.parametrize(
    "probabilities,expected",
    [
        (dict(horizontal_flip=0, vertical_flip=0, rot90=0), {"identity": 200}),
        (dict(horizontal_flip=1, vertical_flip=0, rot90=0), {"left-right": 200}),
        (dict(horizontal_flip=0, vertical_flip=1, rot90=0), {"up-down": 200}),
        (dict(horizontal_flip=1, vertical_flip=1, rot90=0), {"half": 200}),
    ],
)
def test_probabilities_of_zero_and_one_are_certain(probabilities, expected):
    assert drawn(200, **probabilities) == expected


@pytest.mark.parametrize(
    "flip,expected",
    [
        (dict(horizontal_flip=0, vertical_flip=0), {"identity", "quarter", "half", "three quarters"}),
        (dict(horizontal_flip=1, vertical_flip=0), {"left-right", "up-down", "transposed", "antitransposed"}),
    ],
)
def test_quarter_turns_are_drawn_evenly(flip, expected):
    counts = drawn(1200, rot90=1, **flip)
    assert set(counts) == expected
    assert sum((count - 300) ** 2 / 300 for count in counts.values()) < 16.3  # 3 degrees of freedom, once in a thousand


def test_probabilities_in_between():
    # Standard deviation of a share in 2,000 draws: at most 0.011.
    flips = drawn(2000, horizontal_flip=0.25, vertical_flip=0.5, rot90=0)
    expected = {"identity": 0.375, "left-right": 0.125, "up-down": 0.375, "half": 0.125}
    assert {name: count / 2000 for name, count in flips.items()} == pytest.approx(expected, abs=0.045)
    turns = drawn(2000, horizontal_flip=0, vertical_flip=0, rot90=0.4)
    expected = {"identity": 0.7, "quarter": 0.1, "half": 0.1, "three quarters": 0.1}
    assert {name: count / 2000 for name, count in turns.items()} == pytest.approx(expected, abs=0.045)


@pytest.mark.parametrize("sides", [(8,), (8, 12, 16), (4, 24)])
def test_more_steps_do_not_change_the_first_ones(sides):
    refs = grid(3, 4, without=[(1, 1)])
    few, many = (windows(refs, sides, steps, augmentation=Augmentation()) for steps in (30, 42))
    for a, b in zip(few.places, many.places, strict=True):
        assert len(a) < len(b) and np.array_equal(a, b[: len(a)])
    mosaic = TileGrid.apart(5, SIZE, SIZE)
    (a,), (b,) = (tile_windows(mosaic, steps, 3, Augmentation(), 1).places for steps in (4, 9))
    assert np.array_equal(a, b[:4])


@pytest.mark.parametrize(
    "sides,batch_size,counts",
    [
        ((8,), 4, [4]),
        ((8, 12, 16), 4, [4, 2, 1]),
        ((4,), 3, [12]),
        ((16,), 1, [1]),
        ((24, 8), 2, [1, 2]),
        ((12,), 16, [7]),
    ],
)
def test_a_step_has_about_the_pixels_of_its_tiles_and_sides_take_turns(sides, batch_size, counts):
    drawn = windows(grid(2, 3), sides, steps=31, batch_size=batch_size)
    assert drawn.shapes == tuple((side, side) for side in sides) and [p.shape[1:] for p in drawn.places] == [
        (count, 5) for count in counts
    ]
    assert [len(p) for p in drawn.places] == [len(range(turn, 31, len(sides))) for turn in range(len(sides))]


@pytest.mark.parametrize("side", [4, 8])
def test_tiles_are_visited_equally_often(side):
    # Tiles without neighbours, so a window of at most their size sees one tile only.
    drawn = windows(apart(7), (side,), steps=100)
    counts = np.bincount(
        [tile for step in drawn.places[0] for y, x, *_ in step for tile in drawn.grid.tiles_in(y, x, side, side)]
    )
    assert counts.max() - counts.min() <= 1


def test_windows_lie_anywhere_where_all_is_published():
    drawn = windows(grid(9, 9), (12,), steps=3000)
    places = drawn.places[0].reshape(-1, 5)[:, :2] - drawn.grid.origins[0]
    inner = places[(places >= 16).all(1) & (places < 48).all(1)]
    # All 64 offsets from the tiles; chi-square with 63 degrees of freedom: 103 is exceeded once in a thousand.
    counts = np.bincount((inner % SIZE) @ (SIZE, 1), minlength=64)
    expected = len(inner) / 64
    assert expected > 10 and ((counts - expected) ** 2 / expected).sum() < 103


@pytest.mark.parametrize("side", [4, 6, 8, 12, 16, 20])
def test_windows_do_not_waste_weight_and_every_pixel_of_a_tile_is_seen(side):
    refs = grid(4, 5, without=[(0, 0), (1, 2), (2, 2), (3, 0), (3, 4)])
    drawn = windows(refs, (side,), steps=1500)
    top, left = drawn.places[0].reshape(-1, 5)[:, :2].T
    share = drawn.grid.area(top, left, np.full(len(top), side)) / side**2
    if side <= SIZE:
        assert share.min() >= 0.85
    # Centres are drawn uniformly from the tiles and not moved.
    generator = np.random.default_rng(0)
    tile = generator.integers(0, len(refs), 20_000)
    y, x = (drawn.grid.origins[tile] + generator.integers(0, SIZE, (20_000, 2)) - side // 2).T
    centred = drawn.grid.area(y, x, np.full(len(y), side)) / side**2
    assert 1 - share.mean() < 0.7 * (1 - centred.mean())
    seen = np.zeros(np.multiply(drawn.grid.table.shape, SIZE), int)
    for y, x in zip(top, left, strict=True):
        seen[y : y + side, x : x + side] += 1
    published = np.kron(drawn.grid.table >= 0, np.ones((SIZE, SIZE), bool))
    assert seen[published].min() > 0.2 * seen[published].mean()


def test_windows_of_a_tile_without_neighbours_hold_the_whole_tile():
    drawn = windows(apart(3), (12,))
    for y, x, *_ in drawn.places[0].reshape(-1, 5):
        assert drawn.grid.area(y, x, 12) == SIZE**2


def test_the_tiles_of_a_step_are_those_its_windows_touch():
    refs = grid(3, 3) + grid(2, 2, "other")
    drawn = windows(refs, (8, 20), steps=20)
    ones = np.broadcast_to(np.arange(len(refs))[:, None, None], (len(refs), SIZE, SIZE))
    several = 0
    for step in range(20):
        side = (8, 20)[step % 2]
        seen = [drawn.grid.read(ones, y, x, side, side, fill=-1) for y, x, *_ in drawn.places[step % 2][step // 2]]
        assert drawn.tiles_at(step).tolist() == sorted(set(np.unique(seen)) - {-1})
        several += len(drawn.tiles_at(step)) > 5
    assert several


@pytest.mark.parametrize("sides", [(), (8, 40)])
def test_sides_beyond_the_reach_are_refused(sides):
    with pytest.raises(ValueError, match="reach of 32 pixels"):
        picture_windows(TileGrid.of(grid(2, 2), SIZE, SIZE, 32), sides, 3, 2, STILL, 0)


@pytest.mark.parametrize("side,least", [(128, 0.98), (192, 0.95), (256, 0.93)])
def test_windows_on_the_real_tiles_carry_weight(real_data, side, least):
    refs = Dataset.open(real_data / "mmls_v1").split("train", "val")
    mosaic = TileGrid.of(refs, 128, 128)
    places = picture_windows(mosaic, (side,), 500, 16, STILL, 0).places[0].reshape(-1, 5)
    assert mosaic.area(places[:, 0], places[:, 1], np.full(len(places), side)).mean() > least * side**2
