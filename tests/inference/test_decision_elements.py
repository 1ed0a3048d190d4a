"""Registry of elements: an added element is searched, applied, written, read, described and shown in the report."""

import json
from collections.abc import Iterable
from typing import Annotated

import numpy as np
import pytest
from helpers.components import by_scikit_image
from helpers.out_of_fold import out_of_fold
from helpers.reports import Page, edited, make_run, rows_of
from pydantic import Field
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter
from scipy.special import comb

from marsls_keras.inference.decision import Decision, DecisionError
from marsls_keras.inference.decision_elements import ELEMENTS, Candidates, MaskStep, in_order, register
from marsls_keras.inference.decision_elements.views import VIEWS
from marsls_keras.inference.decision_elements.weights import WEIGHTS
from marsls_keras.report.page import render
from marsls_keras.tuning.count_tables import CountTables
from marsls_keras.tuning.nested_search import decide

CANDIDATES = Candidates(("a", "b"), ("identity", "d4"))


class Grow(MaskStep[int]):
    """Dilate masks by a number of pixels."""

    name, title, default = "grow", "growth of masks, pixels", 0
    form = Annotated[int, Field(ge=0, le=9)]
    place, turn = 70, 70

    def apply(self, value: int, masks: np.ndarray, known: np.ndarray, scale: float) -> np.ndarray:
        return np.stack(
            [binary_dilation(mask, iterations=value) for mask in masks.reshape(-1, *masks.shape[-2:])]
        ).reshape(masks.shape)

    def options(self, candidates: Candidates) -> Iterable[int]:
        return (0, 1, 2)

    def text(self, value: int) -> str:
        return f"masks grown by {value} pixels"


@pytest.fixture
def grow():
    yield register(Grow())
    del ELEMENTS["grow"]


def shrunken(tiles: int = 8, size: int = 40):
    """Return predictions of landslides that are two pixels too small on each side, and of specks of three pixels."""
    rng = np.random.default_rng(0)
    masks = np.stack(
        [by_scikit_image(gaussian_filter(rng.normal(size=(size, size)), 4) > 0, 60, 60) for _ in range(tiles)]
    )
    predicted = np.stack([binary_erosion(mask, iterations=2) for mask in masks])
    for tile, mask in zip(predicted, masks, strict=True):
        outside = np.argwhere(~binary_dilation(mask, iterations=6))
        for row, column in outside[rng.integers(0, len(outside), 4)] if len(outside) else ():
            tile[row, column : column + 3] = True
    return out_of_fold(
        masks.astype(np.uint8), {"identity": np.where(predicted, 0.8, 0.2)}, [i % 4 for i in range(tiles)]
    )


def test_an_element_that_is_added_is_searched_and_applied(grow):
    oof = shrunken()
    decision = decide(oof, ["identity"])
    rows = {row.element: row for row in decision.tuning.elements}
    assert list(rows) == ["threshold", "grow", "min_area", "max_hole"]  # in the order of their turns
    assert (rows["grow"].kept, rows["grow"].value, decision[grow]) == (True, 2, 2) and rows["grow"].gain.interval[0] > 0
    assert rows["min_area"].kept and decision.min_area > 6  # of the specks as they have grown
    # What the search counted is what the masks are, by SciPy and scikit-image alone.
    above = oof.probabilities["run"]["identity"] >= np.float32(decision.threshold)
    expected = np.stack(
        [by_scikit_image(binary_dilation(mask, iterations=2), decision.min_area, decision.max_hole) for mask in above]
    )
    assert np.array_equal(
        decision.segment(oof.probabilities["run"]["identity"].astype(np.float32), oof.tiles.refs), expected
    )
    tables = CountTables(oof)
    counts = tables.per_part(decision, tables.all_halves)[1].pooled()
    truth = oof.tiles.masks == 1
    assert (counts.tp, counts.fp) == ((expected & truth).sum(), (expected & ~truth).sum())
    assert decision.tuning.tuned.scores.miou == pytest.approx(counts.scores()["miou"], abs=1e-12)


def test_an_element_that_is_added_is_written_read_described_and_shown(grow, tmp_path):
    decision = decide(shrunken(), ["identity"])
    decision.write(tmp_path / "decision.json")
    content = json.loads((tmp_path / "decision.json").read_text())
    assert content["grow"] == 2 and decision.to_values()["grow"] == 2  # the latter is what manifests hold
    read = Decision.read(tmp_path / "decision.json")
    assert read[grow] == 2 and read == decision.sealed()
    assert "masks grown by 2 pixels" in read.describe() and "grown" not in Decision().describe()
    assert ("grow", "2") in [(row.element, row.cell) for row in read.tuning.elements]
    page = render([make_run(decision=edited(make_run().decision, grow=2, elements=content["elements"]))])
    assert ["growth of masks, pixels", "2"] in [row[:2] for row in rows_of(page, "<th>value</th>")]
    assert "growth of masks, pixels 2" in Page(page).text
    (tmp_path / "decision.json").write_text(json.dumps({**content, "grow": 10, "sha256": None}))
    with pytest.raises(DecisionError, match=r"grow: expected less than or equal to 9, found 10\nRun marsls tune again"):
        Decision.read(tmp_path / "decision.json")
    del content["grow"]  # as an earlier version wrote it
    assert Decision.from_json(content)[grow] == 0


def test_a_file_with_an_element_that_is_not_there_is_refused(tmp_path):
    content = make_run().decision.to_json()
    with pytest.raises(DecisionError, match=r"grow: version \S+ does not know this key"):
        Decision.from_json({**content, "grow": 2})
    with pytest.raises(TypeError, match="Received: grow"):
        Decision(grow=2)


def test_the_registry_refuses_a_name_twice(grow):
    with pytest.raises(ValueError, match="of this name. Received: grow"):
        register(Grow())


@pytest.mark.parametrize("name", ELEMENTS)
def test_every_element_keeps_to_the_interface(name):
    element = ELEMENTS[name]
    plain = element.parse(element.default)
    assert element.is_plain(plain) and element.to_json(plain) == element.default and hash(plain) is not None
    assert element.is_said(plain) is element.always_said and element.without_places(plain) == (plain, None)
    options = [element.parse(option) for option in element.options(CANDIDATES)]
    assert len(set(options)) == len(options)
    for value in options:
        assert element.parse(json.loads(json.dumps(element.to_json(value)))) == value
        assert element.text(value) and element.cell(value) and element.card(value).title
        assert Decision(**{name: element.to_json(value)})[element] == value
    assert (element.turn is None) == (not options)
    with pytest.raises(ValueError, match=rf"^{name}: .*Received: -1"):
        element.parse(-1)


def test_elements_act_in_the_order_of_the_file_and_join_in_the_order_of_the_search():
    assert [each.name for each in in_order()] == [
        "views",
        "weights",
        "averaging",
        "threshold",
        "max_hole",
        "min_area",
        "across_borders",
    ]
    turns = sorted((each for each in in_order() if each.turn is not None), key=lambda each: each.turn)
    assert [each.name for each in turns] == ["threshold", "views", "weights", "averaging", "min_area", "max_hole"]


def test_when_elements_are_offered():
    def offered(runs, view_sets, representative=True):
        return {
            name for name, each in ELEMENTS.items() if each.offered(Candidates(runs, view_sets, representative))
        } - {"across_borders"}

    assert offered(("a",), ("identity",)) == {"threshold", "min_area", "max_hole"}
    assert offered(("a",), ("d4",)) == {"threshold", "averaging", "min_area", "max_hole"}
    assert offered(("a", "b"), ("identity", "d4"), False) == {"views", "weights", "averaging"}


def test_options_are_all_there():
    weights = [tuple(option.values()) for option in WEIGHTS.options(Candidates(("a", "b", "c"), ()))]
    assert len(weights) == comb(12, 2) and all(sum(each) == pytest.approx(1) for each in weights)
    assert list(VIEWS.options(CANDIDATES)) == ["identity", "d4"]
    threshold = list(ELEMENTS["threshold"].options(CANDIDATES))
    assert threshold[0] == 0.001 and threshold[-1] == 0.999 and len(threshold) == 999


def test_weights_of_other_runs_are_refused():
    content = make_run().decision.to_json()
    for weights in ({"other": 1.0}, {"default": 0.0}, {"default": 0.5, "other": 0.5}):
        with pytest.raises(
            DecisionError, match="weights should have one of each of the runs default, and not all of them 0"
        ):
            Decision.from_json({**content, "weights": weights})
    assert (
        Decision.from_json({**content, "weights": {"default": 1.0}}).describe() == "views d4, threshold 0.45"
    )  # one run has no weights
