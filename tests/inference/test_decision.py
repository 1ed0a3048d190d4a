"""Decisions: immutable, checked, fitted to tiles, written and read with their SHA-256."""

import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from helpers.reports import make_run

from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.inference.decision import Decision, DecisionError
from marsls_keras.inference.purpose import Purpose

ALONE = [TileRef(f"t/{i}", Path(f"{i}.tif"), None, "t", "a", None) for i in range(2)]
PLACED = [TileRef(f"t/{i}", Path(f"{i}.tif"), None, "t", "a", (0, i)) for i in range(2)]


def tuned(**keys) -> Decision:
    content = make_run().decision.to_json()
    return Decision.from_json(
        {**content, "expected": {key: content["nested"][key] for key in ("scores", "interval")}, **keys}
    )


def test_where_tiles_lie_unknown_windows_and_borders_are_done_without(caplog):
    decision = tuned(views="d4@256", min_area=9, across_borders=True)
    assert decision.fit(PLACED) is decision and not caplog.messages and decision.expected.scores.miou == 0.4321
    fitted = decision.fit(ALONE)
    assert caplog.messages == [
        "The names of these tiles do not tell where each lies: views d4 of single tiles instead of d4@256, "
        "components and holes end at the borders of each."
    ]
    assert (fitted.view_set, fitted.across_borders, fitted.min_area, fitted.expected) == ("d4", False, 9, None)
    assert fitted.tuning.nested == decision.tuning.nested and fitted.to_json()["expected"] is None
    single = tuned()
    assert single.fit(ALONE) is single and len(caplog.messages) == 1
    assert Decision(views="d4@256").fit(ALONE) == Decision(views="d4") and "components" not in caplog.messages[1]


def test_what_is_written_is_read_and_an_edited_file_is_refused(tmp_path):
    path, decision = tmp_path / "decision.json", tuned(isolated=True, **{"for": "region"})
    decision.write(path)
    read = Decision.read(path)
    assert read == decision.sealed() and read.to_json() == json.loads(path.read_text()) and read.sealed() == read
    assert (read.purpose, read.isolated, read.folds) == (Purpose.REGION, True, [0, 1])
    path.write_text(json.dumps({**read.to_json(), "threshold": 0.46}))
    with pytest.raises(DecisionError, match="was edited or damaged since marsls tune wrote it"):
        Decision.read(path)
    with pytest.raises(DecisionError, match="missing.json does not exist"):
        Decision.read(tmp_path / "missing.json")
    with pytest.raises(ValueError, match=r"Only a tuned decision is written to a file. Received: Decision\(views='d4'"):
        Decision(views="d4").write(path)


def test_a_decision_that_nobody_tuned_is_its_values_alone():
    decision = Decision(views="d4")
    assert (decision.purpose, decision.expected, decision.folds, decision.isolated) == (None, None, [], False)
    assert decision.to_json() == decision.to_values() and decision.describe() == "views d4, threshold 0.5"
    assert decision.to_values() == {
        **{"views": "d4", "weights": None, "averaging": "probability", "threshold": 0.5},
        **{"max_hole": 0, "min_area": 0, "across_borders": False},
    }


def test_a_decision_is_frozen_hashable_and_equal_by_its_values():
    decision = Decision(threshold=0.4, weights={"a": 0.7, "b": 0.3})
    assert (
        decision == Decision(weights={"a": 0.7, "b": 0.3}, threshold=0.4)
        and len({decision, decision.replace(), Decision()}) == 2
    )
    with pytest.raises(FrozenInstanceError):
        decision.values = ()
    assert repr(decision) == "Decision(views='identity', weights={'a': 0.7, 'b': 0.3}, threshold=0.4)"
    assert decision.averages_only() == Decision(weights={"a": 0.7, "b": 0.3}) and not decision.is_plain
    assert Decision(weights={"a": 0.5, "b": 0.5}).is_plain and not Decision(averaging="logit").is_plain


@pytest.mark.parametrize(
    "values", [{"threshold": 0.0}, {"threshold": "0.5"}, {"views": "d5"}, {"min_area": -1}, {"averaging": "mean"}]
)
def test_a_decision_has_no_wrong_values(values):
    with pytest.raises(ValueError, match=f"^{next(iter(values))}: .*Received: "):
        Decision(**values)


@pytest.mark.parametrize("values", [{"views": "d5"}, {"views": "d4", "newer": 1}])
def test_values_that_a_file_holds_are_checked_by_its_name(values):
    with pytest.raises(
        DecisionError, match=r"^full\.json is damaged, was edited, or is of another version: .*(d5|newer)"
    ):
        Decision.from_values(values, "full.json")
    assert Decision.from_values({"views": "d4", "weights": None}, "full.json") == Decision(views="d4")
