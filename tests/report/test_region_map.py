"""Map of a region: its pictures and outlines against the arrays they were drawn from."""

import base64
import io
import re

import numpy as np
import pytest
from helpers.reports import SIZE, Page, make_run
from matplotlib.path import Path as Polygon
from PIL import Image
from scipy import ndimage

from marsls_keras.data.index.dataset import TileRef
from marsls_keras.report import region_map
from marsls_keras.report.outline import outline_path
from marsls_keras.report.region_map import region_maps
from marsls_keras.report.run_summary import evaluate
from marsls_keras.report.tile_pictures import ERROR_COLOURS

CELLS = [(7, 3), (7, 4), (8, 4), (20, 9)]  # three connected tiles, and one far away


def run_of(cells, **changes):
    """Return a run whose first tiles lie in cells, and the others nowhere."""
    run = make_run()
    refs = [TileRef(f"train/t{i}", None, None, "train", "base", None) for i in range(len(run.refs))]
    for i, cell in enumerate(cells):
        refs[i] = TileRef(f"train/t{i}", None, None, "train", "base", cell)
    return make_run(refs=tuple(refs), **changes)


def decoded(url: str) -> np.ndarray:
    kind, _, content = url.partition(";base64,")
    assert kind.startswith("data:image/")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content, validate=True))).convert("RGBA"))


def filled(path: str, shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels whose centres lie inside an SVG path of relative lines, by the even-odd rule."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    centres = np.stack([2 * x.ravel() + 1, 2 * y.ravel() + 1], 1)
    inside = np.zeros(len(centres), bool)
    for ring in path.split("z")[:-1]:
        start, steps = (np.array(re.findall(r"-?\d+", part), int).reshape(-1, 2) for part in ring[1:].split("l"))
        inside ^= Polygon(np.concatenate([start, start + np.cumsum(steps, axis=0), start])).contains_points(centres)
    return inside.reshape(shape)


@pytest.mark.parametrize("seed", range(3))
def test_an_outline_encloses_its_pixels_and_no_others(seed: int) -> None:
    mask = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(40, 55)), 1.5) > 0.02
    path = outline_path(mask)
    assert np.array_equal(filled(path, mask.shape), mask)
    assert outline_path(np.zeros((4, 4), bool)) == ""


def test_tiles_lie_at_their_places_with_their_errors() -> None:
    run = run_of(CELLS)
    (drawn,) = region_maps(run, evaluate(run))
    assert (drawn["width"], drawn["height"], drawn["factor"], drawn["unscored"]) == (7 * SIZE, 14 * SIZE, 1, 0)
    places = [(piece["x"], piece["y"], piece["width"], piece["height"]) for piece in drawn["pieces"]]
    assert places == [(0, 0, 2 * SIZE, 2 * SIZE), (6 * SIZE, 13 * SIZE, SIZE, SIZE)]
    colours = {name: tuple(int(code[i : i + 2], 16) for i in (1, 3, 5)) for name, code in ERROR_COLOURS.items()}
    piece = drawn["pieces"][0]
    errors = decoded(piece["errors"])
    for i, (row, column) in enumerate(CELLS[:3]):
        place = (slice((row - 7) * SIZE, (row - 6) * SIZE), slice((column - 3) * SIZE, (column - 2) * SIZE))
        truth, found = run.masks[i] == 1, run.predicted[i] == 1
        for area, colour in zip((truth & found, found & ~truth, truth & ~found), colours.values(), strict=True):
            shown = (errors[place][..., :3] == colour).all(-1) & (errors[place][..., 3] == 255)
            assert np.array_equal(shown, area)
        assert np.array_equal(filled(piece["truth"], errors.shape[:2])[place], truth)
        assert np.array_equal(filled(piece["prediction"], errors.shape[:2])[place], found)
    for layer in ("rgb", "relief"):
        picture = decoded(piece[layer])
        assert picture.shape == (2 * SIZE, 2 * SIZE, 4) and np.ptp(picture[..., 0]) > 100
        assert not picture[SIZE:, :SIZE, 3].any() and picture[:SIZE, :, 3].all()  # no tile, no picture


def test_a_large_region_is_reduced_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region_map, "MAX_PIXELS", 4 * SIZE**2 // 4)
    run = run_of(CELLS)
    (drawn,) = region_maps(run, evaluate(run))
    assert drawn["factor"] == 2
    piece = drawn["pieces"][0]
    assert decoded(piece["rgb"]).shape[:2] == decoded(piece["errors"]).shape[:2] == (SIZE, SIZE)
    assert piece["width"] == 2 * SIZE and filled(piece["truth"], (2 * SIZE, 2 * SIZE)).any()


def test_a_tile_without_prediction_shows_its_truth_alone() -> None:
    run = run_of(CELLS, folds=(0,))  # tiles 2 and 3 are held out by fold 1
    (drawn,) = region_maps(run, evaluate(run))
    last = drawn["pieces"][1]
    assert drawn["unscored"] == 2
    assert last["truth"] and not last["prediction"] and not decoded(last["errors"])[..., 3].any()


def test_each_raster_has_its_map_and_unplaced_tiles_none() -> None:
    assert region_maps(run_of([]), evaluate(run_of([]))) == []
    run = run_of(CELLS)
    refs = tuple(TileRef(r.id, None, None, "train", "other" if r.cell == (20, 9) else "base", r.cell) for r in run.refs)
    assert [drawn["name"] for drawn in region_maps(make_run(refs=refs), evaluate(run))] == ["base", "other"]


def test_the_page_holds_the_map_with_a_switch_for_each_layer() -> None:
    from marsls_keras.report.page import render

    page = render([run_of(CELLS)])
    parsed = Page(page)
    switches = [a["class"] for tag, a in parsed.tags if tag == "input"]
    assert switches == ["on-rgb", "on-relief", "on-truth", "on-prediction", "on-errors"]
    assert [a["viewbox"] for tag, a in parsed.tags if tag == "svg"] == [f"0 0 {7 * SIZE} {14 * SIZE}"]
    assert len([tag for tag, _ in parsed.tags if tag == "image"]) == 2 * 3
    labels = {a["for"] for tag, a in parsed.tags if tag == "label"}
    assert labels == {a["id"] for tag, a in parsed.tags if tag == "input"}
