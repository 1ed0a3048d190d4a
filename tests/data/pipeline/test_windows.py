"""Batches of windows, checked with tiles whose pixels encode their position."""

from dataclasses import replace

import numpy as np
import pytest

from marsls_keras.config import Augmentation, Data
from marsls_keras.data import Dataset
from marsls_keras.data.decoded.load import load
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.data.index.dataset import TileRef
from marsls_keras.data.pipeline.batches import TrainingBatches
from marsls_keras.data.splits import make_splits
from marsls_keras.data.synthetic.mars import write_dataset

STILL = Augmentation(horizontal_flip=0, vertical_flip=0, rot90=0)
SIZE = 6
CELLS = [(r, c) for r in range(3) for c in range(4) if (r, c) not in ((1, 1), (2, 3))]
PLACES = [*(("base", cell) for cell in CELLS), ("test", (0, 1)), ("test", (1, 1)), ("base", None), ("base", None)]
REFS = [TileRef(f"train/{i}", None, None, "train", raster, cell) for i, (raster, cell) in enumerate(PLACES)]
SYMMETRIES = [lambda a, k=k, m=m: np.rot90(np.fliplr(a) if m else a, k) for k in range(4) for m in range(2)]


def coded(number: int, height: int = SIZE, width: int = SIZE):
    """Return images with the channels tile (from 1 on), row, column; and masks and weights computed from those."""
    tile, row, column = np.meshgrid(np.arange(1, number + 1), np.arange(height), np.arange(width), indexing="ij")
    masks, weights = (3 * row + 5 * column + tile) % 3 == 0, (tile + row * column) % 4 / 2 + 0.5
    return np.stack([tile, row, column], -1).astype(np.float32), masks.astype(np.uint8), weights.astype(np.float32)


def batches(sizes=(6, 9, 12), weighted=False, augmentation=None, height=SIZE, width=SIZE, **options):
    images, masks, weights = coded(len(REFS), height, width)
    return TrainingBatches(
        images,
        masks,
        augmentation=augmentation or Augmentation(),
        grid=TileGrid.of(REFS, height, width, max(sizes)),
        sizes=sizes,
        weights=weights if weighted else None,
        **{
            "batch_size": 4,
            "seed": 1,
            "epochs": 5,
            "bands": ("red", "dem", "gray"),
            "units": np.ones(3, np.float32),
            **options,
        },
    )


def take(given: TrainingBatches, *start: int) -> list[tuple[np.ndarray, ...]]:
    return [tuple(t.numpy() for t in element) for element in given.dataset(*start)]


def same(a, b) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
    )


def corner(mosaic: TileGrid, image: np.ndarray) -> tuple[int, int]:
    """Return the corner of an upright window, computed from any tile pixel in it."""
    i, j = np.argwhere(image[..., 0] > 0)[0]
    tile, row, column = image[i, j].astype(int)
    return mosaic.origins[tile - 1][0] + row - i, mosaic.origins[tile - 1][1] + column - j


def upright(mosaic: TileGrid, images: np.ndarray, seen: np.ndarray) -> list[tuple[int, int, int]]:
    """Return the symmetries of a window of the raster that a training window matches, and that window."""
    found = []
    for number, turn in enumerate(SYMMETRIES):
        straight = SYMMETRIES[(8 - number) % 8 if number % 2 == 0 else number](seen)  # the inverse
        top, left = corner(mosaic, straight)
        read = mosaic.read(images, top, left, *seen.shape[:2])
        if np.array_equal(turn(read), seen):
            found.append((number, top, left))
    return found


@pytest.mark.parametrize("sizes", [(6,), (3,), (14,), (1, 5), (6, 9, 12)])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_window_is_a_turned_or_flipped_piece_of_the_picture_with_its_mask_and_weight(sizes, weighted):
    given = batches(sizes, weighted)
    mosaic = TileGrid.of(REFS, SIZE, SIZE, max(sizes))
    images, masks, weights = coded(len(REFS))
    turns, across, empty = set(), 0, 0
    for step, (image, mask, weight) in enumerate(take(given)):
        side = sizes[step % len(sizes)]
        count = max(1, round(4 * SIZE**2 / side**2))
        assert image.shape == (count, side, side, 3) and mask.shape == weight.shape == (count, side, side, 1)
        assert image.dtype == mask.dtype == weight.dtype == np.float32
        for x, y, w in zip(image, mask[..., 0], weight[..., 0], strict=True):
            found = upright(mosaic, images, x)
            assert len(found) == 1 or side == 1
            number, top, left = found[0]
            expected = weights if weighted else np.ones_like(weights)
            assert np.array_equal(SYMMETRIES[number](mosaic.read(masks, top, left, side, side)), y)
            assert np.array_equal(SYMMETRIES[number](mosaic.read(expected, top, left, side, side)), w)
            assert not y[w == 0].any() and not x[w == 0].any() and ((w == 0) == (x[..., 0] == 0)).all()
            turns.add(number)
            across += len(np.unique(x[..., 0][w > 0])) > 1
            empty += (w == 0).any()
    assert len(turns) == 8 or sizes == (14,) and len(turns) > 5
    assert across > 3 and (empty or max(sizes) < SIZE)


@pytest.mark.parametrize(
    "probabilities,expected",
    [
        (dict(horizontal_flip=0, vertical_flip=0, rot90=0), lambda a: a),
        (dict(horizontal_flip=1, vertical_flip=0, rot90=0), np.fliplr),
        (dict(horizontal_flip=0, vertical_flip=1, rot90=0), np.flipud),
        (dict(horizontal_flip=1, vertical_flip=1, rot90=0), lambda a: np.rot90(a, 2)),
    ],
)
@pytest.mark.parametrize("sizes", [(), (6,), (9,)])
def test_flips_are_those_of_numpy(probabilities, expected, sizes):
    images, masks, _ = coded(len(REFS))
    mosaic = TileGrid.of(REFS, SIZE, SIZE) if sizes else TileGrid.apart(len(REFS), SIZE, SIZE)
    options = {"grid": mosaic, "sizes": sizes} if sizes else {}
    settings = {
        "batch_size": 4,
        "seed": 1,
        "epochs": 2,
        "bands": ("red", "dem", "gray"),
        "units": np.ones(3, np.float32),
    }
    for image, _, _ in take(
        TrainingBatches(images, masks, augmentation=Augmentation(**probabilities), **settings, **options)
    ):
        for x in image:
            top, left = corner(mosaic, expected(x))  # each of these is its own inverse
            assert np.array_equal(mosaic.read(images, top, left, *x.shape[:2]), expected(x))


@pytest.mark.parametrize("flip", [0, 1])
def test_turns_without_flips_are_quarter_turns(flip):
    images, _, _ = coded(len(REFS))
    found = set()
    for image, _, _ in take(batches((9,), augmentation=Augmentation(horizontal_flip=flip, vertical_flip=0, rot90=1))):
        found |= {upright(TileGrid.of(REFS, SIZE, SIZE, 9), images, x)[0][0] for x in image}
    assert found == {0 + flip, 2 + flip, 4 + flip, 6 + flip}


def test_tiles_need_not_be_square():
    mosaic = TileGrid.of(REFS, 4, 7, 10)
    images, masks, _ = coded(len(REFS), 4, 7)
    for image, mask, weight in take(batches((5, 10), height=4, width=7)):
        for x, y, w in zip(image, mask, weight, strict=True):
            ((number, top, left),) = upright(mosaic, images, x)
            assert np.array_equal(SYMMETRIES[number](mosaic.read(masks, top, left, *y.shape[:2])), y[..., 0])
            assert np.array_equal(w[..., 0], x[..., 0] > 0)


def test_an_epoch_has_the_steps_and_pixels_of_tiles():
    given = batches(epochs=6)
    seen = [mask.size for _, mask, _ in take(given)]
    assert given.steps_per_epoch == round(len(REFS) / 4) and len(seen) == 6 * given.steps_per_epoch
    assert sum(seen) == pytest.approx(6 * given.steps_per_epoch * 4 * SIZE**2, rel=0.05)


def test_windows_know_their_shape_beforehand_where_there_is_one_side():
    assert [tuple(spec.shape) for spec in batches((12,), batch_size=8).dataset().element_spec] == [
        (2, 12, 12, 3),
        *[(2, 12, 12, 1)] * 2,
    ]
    assert [tuple(spec.shape) for spec in batches().dataset().element_spec] == [
        (None, None, None, 3),
        *[(None, None, None, 1)] * 2,
    ]


@pytest.mark.parametrize("augmentation", [Augmentation(), STILL])
@pytest.mark.parametrize("sizes", [(9,), (6, 9, 12)])
def test_a_later_start_and_more_epochs_give_the_same_batches(augmentation, sizes):
    given = batches(sizes, True, augmentation, epochs=3)
    whole = take(given)
    assert same(take(given), whole) and not same(take(batches(sizes, True, augmentation, epochs=3, seed=2)), whole)
    for start in (1, 6, 11):  # within and between epochs of four steps
        assert same(take(given, start), whole[start:])
    assert same(take(batches(sizes, True, augmentation, epochs=4))[: len(whole)], whole)


def test_strongly_changed_windows_are_the_same_after_a_start_within_an_epoch():
    given = batches((6, 12), True, Augmentation(preset="strong"), epochs=3)
    whole = take(given)
    assert not same(whole, take(batches((6, 12), True, epochs=3)))
    assert same(take(given, 6), whole[6:])


def test_the_tiles_of_a_step_can_be_named():
    given = batches()
    for step, (image, _, _) in enumerate(take(given)):
        assert (given.tiles_at(step) + 1).tolist() == sorted(set(image[..., 0].ravel().astype(int)) - {0})


def held_out_are_never_seen(tiles, config: Data, sizes: tuple[int, ...], augmentation: Augmentation) -> int:
    """Train on pixels that encode their position, with held-out tiles that would spoil any result; count pixels."""
    size = tiles.images.shape[1]
    held_out = make_splits(tiles, config, 0).held_out(0)
    row, column = np.mgrid[:size, :size]
    images = np.stack(
        [np.stack([r.cell[0] * size + row, r.cell[1] * size + column, 0 * row + 1], -1) for r in tiles.refs]
    ).astype(np.float32)
    out = np.array([ref.id in held_out for ref in tiles.refs])
    assert 0 < out.sum() < len(out)
    images[out], masks = np.nan, np.where(out[:, None, None], 77, tiles.masks)
    train = replace(tiles, images=images, masks=masks).subset(np.flatnonzero(~out))
    given = TrainingBatches(
        train.images,
        train.masks,
        batch_size=8,
        augmentation=augmentation,
        bands=("dem", "slope", "thermal"),
        units=np.ones(3, np.float32),
        seed=0,
        epochs=1,
        grid=TileGrid.of(train.refs, size, size),
        sizes=sizes,
    )
    masks_at = {ref.cell: mask for ref, mask in zip(tiles.refs, tiles.masks, strict=True) if ref.id not in held_out}
    pixels = 0
    for image, mask, weight in take(given):
        assert np.isfinite(image).all() and mask.max() <= 1 and set(np.unique(weight)) <= {0, 1}
        inside = weight[..., 0] == 1
        assert not image[~inside].any() and not mask[~inside].any() and (image[inside][:, 2] == 1).all()
        y, x, m = *image[inside][:, :2].T.astype(int), mask[inside][:, 0]
        for cell in {*zip((y // size).tolist(), (x // size).tolist(), strict=True)}:
            here = (y // size == cell[0]) & (x // size == cell[1])
            assert np.array_equal(masks_at[cell][y[here] % size, x[here] % size], m[here])
        # Adjacent pixels of the window are adjacent in the raster, also across tile borders.
        for axis in (1, 2):
            step = np.abs(np.diff(image[..., :2], axis=axis)).sum(-1)
            both = np.take(inside, range(1, inside.shape[axis]), axis) & np.take(
                inside, range(inside.shape[axis] - 1), axis
            )
            assert (step[both] == 1).all()
        pixels += inside.sum()
    return pixels


@pytest.mark.parametrize("cv", ["blocks", "geographic", "official"])
def test_no_pixel_of_a_held_out_generated_tile_is_ever_seen(tmp_path, cv):
    write_dataset(tmp_path / "data", "mmls_v2", train=30, val=6, test=4, size=32)
    tiles = load(Dataset.open(tmp_path / "data"))
    assert held_out_are_never_seen(tiles.subset(range(36)), Data(cv=cv), (24, 32, 80), Augmentation()) > 20_000


def test_no_pixel_of_a_held_out_real_tile_is_ever_seen(real_data):
    tiles = load(Dataset.open(real_data / "mmls_v1"))
    assert held_out_are_never_seen(tiles, Data(), (128, 192, 256), Augmentation()) > 3_500_000
