"""The expected score in the output of `marsls score`, and in the ledger if there is no interval."""

import json

import numpy as np
import pytest
from helpers.cli import strict_json, succeed
from helpers.truth import truth
from helpers.zips import A, B

from competition.console import bounds, regions_line
from competition.ledger.ledger import ledger_row
from competition.submission.write import write_submission


def scored(folder, manifest, *arguments):
    """Write and score a submission with a mIoU of 0.5 x (1/2 + 4/6)."""
    predicted = {A: np.array([[1, 1, 0, 0]], np.uint8), B: np.array([[0, 0, 0, 1]], np.uint8)}
    true = {A: np.array([[1, 1, 1, 0]], np.uint8), B: np.array([[0, 0, 0, 0]], np.uint8)}
    zip_path = folder / "a.zip"
    write_submission(predicted.items(), zip_path, {name: mask.shape for name, mask in predicted.items()}, manifest)
    return zip_path, succeed("score", zip_path, "--masks", truth(folder / "masks", true), *arguments).out


MIOU = (2 / 4 + 4 / 6) / 2
NESTED = {"nested": {"scores": {}}, "expected": {}, "isolated": False}


@pytest.mark.parametrize(("interval", "side"), [([0.62, 0.79], "below"), ([0.4, 0.5], "above")])
def test_a_score_outside_its_interval_is_said_with_reasons(tmp_path, interval, side):
    expected = {"miou": 0.7, "interval": interval, "measured_on": "tiles held out by folds 0, 1"}
    _, out = scored(tmp_path, {"views": "d4@256", "decision": NESTED, "expected": expected})
    assert (
        f"Expected was 0.7000 ({interval[0]:.4f}–{interval[1]:.4f})" in out
        and f"The score is {side} that interval." in out
    )
    assert "(tiles held out by folds 0, 1). These may be of another region." in out and "tune --for region" in out
    found = strict_json(scored(tmp_path, {"views": "identity", "decision": NESTED, "expected": expected}, "--json")[1])
    assert found["scores"]["miou"] == pytest.approx(MIOU)
    assert {key: found["expected"][key] for key in ("miou", "interval", "inside")} == {
        "miou": 0.7,
        "interval": interval,
        "inside": False,
    }
    assert len(found["expected"]["why"]) == 2 and not any("windows" in why for why in found["expected"]["why"])


def test_a_score_within_its_interval_needs_no_reason(tmp_path):
    _, out = scored(tmp_path, {"expected": {"miou": 0.6, "interval": [0.5, 0.7]}})
    assert "Expected was 0.6000 (0.5000–0.7000)" in out and "Why" not in out


def test_an_expected_score_without_interval(tmp_path):
    manifest = {"expected": {"miou": 0.6, "interval": None}}
    _, out = scored(tmp_path, manifest)
    assert "Expected was 0.6000 (no interval: one block)" in out and "Why" not in out
    assert strict_json(scored(tmp_path, manifest, "--json")[1])["expected"] == {
        "miou": 0.6,
        "interval": None,
        "inside": None,
        "why": [],
    }
    row = ledger_row(manifest)
    assert (row["expected_miou"], row["low"], row["high"]) == (0.6, "", "")
    assert (ledger_row({"expected": None})["expected_miou"], ledger_row({})["low"]) == ("", "")


@pytest.mark.parametrize(
    "expected", [None, {"miou": "much"}, {"interval": [0, 1]}, [], {"miou": 0.5, "interval": [0.1]}]
)
def test_a_manifest_that_expects_nothing_is_no_trouble(tmp_path, expected):
    assert "Expected" not in scored(tmp_path, {"expected": expected})[1]


def test_the_manifest_of_another_zip_says_nothing(tmp_path):
    path, out = scored(tmp_path, {"expected": {"miou": 0.7, "interval": [0.6, 0.8]}})
    assert "Expected" in out
    manifest = path.with_suffix(".json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"sha256": "ab" * 32}))
    assert "Expected" not in succeed("score", path, "--masks", tmp_path / "masks").out
    manifest.write_text("{")
    assert "Expected" not in succeed("score", path, "--masks", tmp_path / "masks").out


def test_in_words():
    assert (bounds(None), bounds([0.1, 0.23456])) == ("no interval: one block", "0.1000–0.2346")
    assert "0.4000 to 0.6000, standard deviation 0.1414" in regions_line(
        {"scores": {"0": 0.4, "1": 0.6}, "min": 0.4, "max": 0.6, "std": 0.1414}
    )
    assert "one region only" in regions_line(None)
