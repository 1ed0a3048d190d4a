"""Stitched components built by hand, and post-processing across borders compared with an uncut raster."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from marsls_keras.data.grid.stitching import pieces, stitch
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.inference.postprocess import postprocess

H, W = 12, 16


def refs(*places: tuple[str, tuple[int, int] | None]) -> list[TileRef]:
    return [TileRef(f"t/{i}", Path(f"{i}.tif"), None, "t", raster, cell) for i, (raster, cell) in enumerate(places)]


def test_tiles_that_touch_are_one_piece_and_are_put_back_into_their_places():
    tiles = refs(
        ("a", (7, 3)),
        ("b", (7, 4)),
        ("a", (8, 4)),
        ("a", (90, 3)),
        ("a", None),
        ("b", (8, 4)),
        ("a", (8, 5)),
        ("a", (7, 1)),
    )
    values = np.random.default_rng(0).random((8, H, W, 2))
    before = values.copy()
    found = []
    for picture, put_back in stitch(tiles, values):
        found.append(picture)
        put_back(picture * 2)
    assert np.array_equal(values, before * 2)
    assert [picture.shape[:2] for picture in found] == [(2 * H, 3 * W), (2 * H, W), (H, W), (H, W), (H, W)]
    large = np.zeros((2 * H, 3 * W, 2))
    # Tiles 0 and 2 touch at a corner.
    large[:H, :W], large[H:, W : 2 * W], large[H:, 2 * W :] = (before[0], before[2], before[6])
    assert np.array_equal(found[0], large)
    assert np.array_equal(found[1], np.concatenate(before[[1, 5]]))
    for picture, tile in zip(found[2:], (3, 4, 7), strict=True):
        assert np.array_equal(picture, before[tile])


def test_every_tile_is_in_one_piece_and_pieces_do_not_touch():
    rng = np.random.default_rng(1)
    chosen = rng.permutation(400)[:120]
    cells = np.stack(np.divmod(chosen, 20), 1)
    members = pieces(TileGrid.of(refs(*(("a", (int(r), int(c))) for r, c in cells)), H, W))
    assert sorted(np.concatenate(members).tolist()) == list(range(120)) and 1 < len(members) < 120
    label = np.empty(120, int)
    for i, tiles in enumerate(members):
        label[tiles] = i
    distance = np.abs(cells[:, None] - cells).max(-1)
    assert (label[:, None] == label)[distance == 1].all()
    # A flood fill from its first tile reaches each whole component.
    for tiles in members:
        reached = {int(tiles[0])}
        while more := {int(j) for i in reached for j in np.flatnonzero(distance[i] == 1)} - reached:
            reached |= more
        assert reached == set(tiles.tolist())


@pytest.mark.parametrize(("min_area", "max_hole"), [(0, 0), (20, 0), (0, 15), (30, 30)])
def test_post_processing_of_pieces_is_that_of_the_uncut_picture(min_area, max_hole):
    whole = gaussian_filter(np.random.default_rng(2).normal(size=(4 * H, 5 * W)), 1.2) > 0.02
    published = np.ones((4, 5), bool)
    published[1, 2] = published[3, 4] = published[0, 0] = False
    cells = [(r, c) for r in range(4) for c in range(5) if published[r, c]]

    def cut(picture: np.ndarray) -> np.ndarray:
        return np.stack([picture[r * H : (r + 1) * H, c * W : (c + 1) * W] for r, c in cells])

    visible = whole & np.kron(published, np.ones((H, W), bool))
    expected = cut(postprocess(visible, min_area, max_hole, np.kron(published, np.ones((H, W), bool))))
    masks = np.stack([cut(visible), np.ones((len(cells), H, W), bool)], -1)
    alone = postprocess(masks[..., 0], min_area, max_hole)
    for picture, put_back in stitch(refs(*(("a", cell) for cell in cells)), masks):
        picture[..., 0] = postprocess(picture[..., 0], min_area, max_hole, picture[..., 1])
        put_back(picture)
    assert np.array_equal(masks[..., 0], expected)
    assert np.array_equal(alone, expected) == (min_area == max_hole == 0)  # borders make a difference


def test_pieces_far_apart_are_not_put_together():
    tiles = refs(("a", (0, 0)), ("a", (100_000, 100_000)), ("b", (0, 0)))
    masks = np.zeros((3, H, W), bool)
    assert max(picture.size for picture, _ in stitch(tiles, masks)) == H * W


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="an array for each of 2 tiles"):
        next(stitch(refs(("a", (0, 0)), ("a", (0, 1))), np.zeros((3, H, W))))
    with pytest.raises(ValueError, match="a grid cell of its own"):
        next(stitch(refs(("a", (0, 0)), ("a", (0, 0))), np.zeros((2, H, W))))
