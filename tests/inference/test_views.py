"""The eight views against index arithmetic, and the group that they form."""

import numpy as np
import pytest

from marsls_keras.errors import InputError
from marsls_keras.inference.views import VIEW_SETS, VIEWS, apply_view, invert_view, views_of


def pixel(view: str, i: int, j: int, height: int, width: int) -> tuple[int, int]:
    """Where pixel (i, j) of the viewed picture comes from, in a picture of height x width."""
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
    assert np.array_equal(invert_view(viewed, view), images)
    assert np.array_equal(apply_view(invert_view(images, view), view), images)


def test_the_views_form_the_group_of_the_square():
    images = np.arange(9).reshape(1, 3, 3)
    pictures = {apply_view(images, view).tobytes(): view for view in VIEWS}
    assert len(VIEWS) == len(pictures) == 8
    table = {(a, b): pictures[apply_view(apply_view(images, a), b).tobytes()] for a in VIEWS for b in VIEWS}  # a missing one is a KeyError
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
    }
    for name, views in VIEW_SETS.items():
        assert views_of(name) == views and len(set(views)) == len(views) and views[0] == "identity"


def test_the_mean_over_all_views_does_not_depend_on_how_a_tile_lies():
    rng = np.random.default_rng(1)
    tile, weight = rng.random((1, 4, 4)), rng.random((4, 4))

    def mean(images):  # a "network" that is not symmetric: it weights pixels by place
        return sum(invert_view(apply_view(images, view) * weight, view) for view in views_of("d4")) / 8

    for view in VIEWS:
        assert mean(apply_view(tile, view)) == pytest.approx(apply_view(mean(tile), view), rel=1e-12)
    assert not np.allclose(apply_view(tile * weight, "rot90"), apply_view(tile, "rot90") * weight)


def test_an_unknown_set_is_an_error_that_lists_the_known():
    with pytest.raises(InputError, match="'d8'. Known: identity, flips, paper, rotations, d4"):
        views_of("d8")
