"""Views against index arithmetic: the eight symmetries and their group, shifts, scales, and names of window views."""

import numpy as np
import pytest

from marsls_keras.errors import InputError
from marsls_keras.inference.tta import apply_view, invert_view, view_turn, viewed_size
from marsls_keras.view_sets import VIEW_SETS, VIEWS, split_view, views_of


def pixel(view: str, i: int, j: int, height: int, width: int) -> tuple[int, int]:
    """Return the source of pixel (i, j) of a view, in an image of height x width."""
    last_row, last_column = height - 1, width - 1
    return {
        "identity": (i, j),
        "horizontal_flip": (i, last_column - j),
        "vertical_flip": (last_row - i, j),
        "rot90": (j, last_column - i),  # counter-clockwise: the right column becomes the top row
        "rot180": (last_row - i, last_column - j),
        "rot270": (last_row - j, i),
        "transpose": (j, i),
        "antitranspose": (last_row - j, last_column - i),
    }[view]


TURNED = ("rot90", "rot270", "transpose", "antitranspose")


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("shape", [(2, 5, 5), (2, 3, 5, 7), (1, 4, 2, 1), (3, 4, 4, 2, 2)])
def test_views_move_pixels_as_named_and_back(view, shape):
    images = np.random.default_rng(0).random(shape)
    viewed = apply_view(images, view)
    height, width = shape[1:3]
    assert viewed.shape == (shape[0], *((width, height) if view in TURNED else (height, width)), *shape[3:])
    for i in range(viewed.shape[1]):
        for j in range(viewed.shape[2]):
            assert np.array_equal(viewed[:, i, j], images[(slice(None), *pixel(view, i, j, height, width))])
    assert np.array_equal(invert_view(viewed, view, height, width), images)
    assert viewed_size(view, height, width) == viewed.shape[1:3]


def test_the_views_form_the_group_of_the_square():
    images = np.arange(9).reshape(1, 3, 3)
    pictures = {apply_view(images, view).tobytes(): view for view in VIEWS}
    assert len(VIEWS) == len(pictures) == 8
    table = {
        (a, b): pictures[apply_view(apply_view(images, a), b).tobytes()] for a in VIEWS for b in VIEWS
    }  # a missing one is a KeyError
    assert all({table[a, b] for b in VIEWS} == set(VIEWS) for a in VIEWS)
    assert table["rot90", "rot90"] == "rot180" and table["rot90", "rot180"] == "rot270"
    assert table["horizontal_flip", "vertical_flip"] == "rot180" and table["transpose", "rot180"] == "antitranspose"
    assert table["rot90", "horizontal_flip"] != table["horizontal_flip", "rot90"]


def test_the_sets_of_views():
    assert {name: set(views) for name, views in VIEW_SETS.items()} == {
        "identity": {"identity"},
        "flips": {"identity", "horizontal_flip", "vertical_flip", "rot180"},
        "paper": {"identity", "horizontal_flip", "vertical_flip", "rot90"},
        "rotations": {"identity", "rot90", "rot180", "rot270"},
        "d4": set(VIEWS),
        "shifts": {"identity", "shift_8", "shift_16", "shift_24"},
        "scales": {"identity", "scale_0.75", "scale_1.25"},
        "d4_scales": {*VIEWS, "scale_0.75", "scale_1.25"},
    }
    for name, views in VIEW_SETS.items():
        assert views_of(name) == views and len(set(views)) == len(views) and views[0] == "identity"


def test_single_views_and_sets_are_joined_by_plus():
    """The rows of DualSwinFusionSeg's Table 11: single flips, and a pair."""
    assert views_of("horizontal_flip") == ("horizontal_flip",)
    assert views_of("identity+vertical_flip") == ("identity", "vertical_flip")
    assert views_of("horizontal_flip+vertical_flip") == ("horizontal_flip", "vertical_flip")
    assert views_of("rotations+flips") == (*VIEW_SETS["rotations"], "horizontal_flip", "vertical_flip")  # each once
    assert views_of("identity+rot90@64/16") == ("identity@64/16", "rot90@64/16")
    for wrong in ("", "identity+", "identity+flip", "d4+d5", "shift_8"):
        with pytest.raises(InputError, match="There is no set of views.*joined by [+]"):
            views_of(wrong)


def test_the_mean_over_all_views_does_not_depend_on_how_a_tile_lies():
    rng = np.random.default_rng(1)
    tile, weight = rng.random((1, 4, 4)), rng.random((4, 4))

    def mean(images):  # a "network" that is not symmetric: it weights pixels by place
        return (
            sum(invert_view(apply_view(images, view) * weight, view, *images.shape[1:3]) for view in views_of("d4")) / 8
        )

    for view in VIEWS:
        assert mean(apply_view(tile, view)) == pytest.approx(apply_view(mean(tile), view), rel=1e-12)
    assert not np.allclose(apply_view(tile * weight, "rot90"), apply_view(tile, "rot90") * weight)


def test_an_unknown_set_is_an_error_that_lists_the_known():
    with pytest.raises(InputError, match="'d8'. Known: identity, flips, paper, rotations, d4"):
        views_of("d8")


@pytest.mark.parametrize("shift", [1, 8, 31])
@pytest.mark.parametrize("shape", [(2, 40, 33), (1, 32, 48, 3), (1, 8, 8, 2)])
def test_a_shift_puts_each_pixel_further_and_back(shift, shape):
    images = np.random.default_rng(1).random(shape)
    viewed = apply_view(images, f"shift_{shift}")
    height, width = shape[1:3]
    assert viewed.shape == (shape[0], height + 32, width + 32, *shape[3:])
    assert np.array_equal(viewed[:, shift + 5, shift + 3], images[:, 5, 3])
    assert np.array_equal(viewed[:, shift - 1, shift + 3], images[:, 0, 3])  # mirrored at the border
    assert np.array_equal(viewed[:, shift + height, shift], images[:, -1, 0])
    assert np.array_equal(invert_view(viewed, f"shift_{shift}", height, width), images)


@pytest.mark.parametrize(("scale", "side"), [(0.75, 96), (1.25, 160), (1.5, 192), (0.1, 32)])
def test_a_scale_keeps_what_is_linear_and_the_place_of_the_borders(scale, side):
    view = f"scale_{scale:g}"
    centres = (np.arange(128) + 0.5) / 128
    images = np.broadcast_to((2 * centres[:, None] - 3 * centres)[None, ..., None], (2, 128, 128, 1))
    viewed = apply_view(images, view)
    assert viewed.shape == (2, side, side, 1) and viewed_size(view, 128, 128) == (side, side)
    there = (np.arange(side) + 0.5) / side
    inner = slice(1, -1)  # beyond the outermost centres the nearest pixel goes on
    expected = (2 * there[:, None] - 3 * there)[inner, inner]
    assert np.allclose(viewed[0, inner, inner, 0], expected, atol=1e-12)
    edge = 128 // side + 2
    back = invert_view(viewed[..., 0], view, 128, 128)
    assert back.shape == (2, 128, 128)
    assert np.allclose(back[:, edge:-edge, edge:-edge], images[:, edge:-edge, edge:-edge, 0], atol=1e-12)


def test_shifts_and_scales_turn_no_vector():
    assert np.array_equal(view_turn("shift_8"), np.eye(2)) and np.array_equal(view_turn("scale_1.25"), np.eye(2))


def test_views_of_windows_are_named_after_set_side_and_stride():
    assert views_of("identity@256") == ("identity@256/128",)
    assert views_of("flips@192/64") == tuple(f"{view}@192/64" for view in VIEW_SETS["flips"])
    assert split_view("rot90@192/64") == ("rot90", 192, 64) and split_view("rot90") == ("rot90", None, None)


@pytest.mark.parametrize("name", ["d4@", "d4@16", "d4@x", "d4@256/0", "d4@256/300", "d4@-64", "d4@256/64/2"])
def test_windows_that_cannot_be_are_refused(name):
    with pytest.raises(
        InputError, match=r"expected the side of windows in pixels, 32 or more.*such as d4@256 or d4@256/64"
    ):
        views_of(name)
    with pytest.raises(InputError, match="There is no set of views 'd8@256'"):
        views_of("d8@256")
