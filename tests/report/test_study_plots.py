"""Hyperparameter search in the report: charts, table, and studies with few trials."""

import math

import numpy as np
import pytest
from helpers.reports import Page, make_run, rows_of
from matplotlib.image import imread

from marsls_keras.report.page import render
from marsls_keras.report.plots import png
from marsls_keras.report.study_plots import height, history, parallel_coordinates, study_plots

KEYS = {
    "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "loss": {"choices": ["{bce: 1}", "{dice: 1}"]},
    "augmentation.cutmix": {"low": 0.0, "high": 0.5, "log": False},
}


def trial(number, state, miou=None, reason=None, **parameters):
    values = {"training.learning_rate": 1e-3, "loss": "{bce: 1}", "augmentation.cutmix": 0.1, **parameters}
    row = {
        "number": number,
        "state": state,
        "miou": miou,
        "epochs": 3,
        "last_miou": 0.3,
        "seconds": 61.0,
        "reason": reason,
    }
    return row | {"parameters": values}


STUDY = {
    "name": "default",
    "folds": [0],
    "keys": KEYS,
    "importance": {"loss": 0.75, "training.learning_rate": 0.25},
    "trials": [
        trial(0, "complete", 0.5),
        trial(1, "fail", reason="exit code 1: <b>NaN</b>"),
        trial(2, "complete", 0.7, loss="{dice: 1}"),
        trial(3, "pruned"),
        trial(4, "complete", 0.6),
    ],
}


def test_where_a_value_lies_on_its_axis():
    assert [height(KEYS["training.learning_rate"], value) for value in (1e-4, 1e-3, 1e-2)] == pytest.approx([0, 0.5, 1])
    assert [height(KEYS["augmentation.cutmix"], value) for value in (0, 0.125, 0.5)] == pytest.approx([0, 0.25, 1])
    assert [height(KEYS["loss"], value) for value in KEYS["loss"]["choices"]] == [0, 1]
    assert height({"choices": ["only"]}, "only") == 0


def test_the_best_so_far_never_falls_and_every_trial_is_drawn():
    axes = history(STUDY["trials"]).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["finished"].get_xdata()) == [0, 2, 4] and list(lines["finished"].get_ydata()) == [0.5, 0.7, 0.6]
    assert list(lines["best so far"].get_ydata()) == [0.5, 0.7, 0.7]
    assert list(lines["stopped early"].get_xdata()) == [3] and list(lines["failed"].get_xdata()) == [1]


def test_a_line_for_each_finished_trial_with_gaps_where_a_key_was_not_drawn():
    done = [t for t in STUDY["trials"] if t["miou"] is not None]
    gap = {**done[0], "miou": 0.4, "parameters": {k: v for k, v in done[0]["parameters"].items() if k != "loss"}}
    lines = [
        line.get_ydata()
        for line in parallel_coordinates(KEYS, [*done, gap]).axes[0].lines
        if len(line.get_ydata()) == 3
    ]
    assert len(lines) == 4
    assert math.isnan(lines[0][1]) and not np.isnan(lines[1:]).any()  # the worst is drawn first
    np.testing.assert_allclose(lines[-1], [0.5, 1, 0.2], rtol=1e-6)  # trial 2, the best, is drawn last


def test_the_page_shows_the_study():
    page = render([make_run(study=STUDY)])
    read = Page(page)
    assert "5 trials of a search" in read.text and "3 finished" in read.text and "1 failed" in read.text
    rows = rows_of(page, "parameters")
    assert [row[0] for row in rows] == ["0", "1", "2", "3", "4"] and [row[2] for row in rows] == [
        "0.5000",
        "–",
        "0.7000",
        "–",
        "0.6000",
    ]
    assert "<b>NaN</b>" not in page and "&lt;b&gt;NaN" in page
    alternatives = " ".join(read.attributes("img", "alt"))
    assert "the best mIoU is 0.7000" in alternatives and "loss 75%, training.learning_rate 25%" in alternatives
    assert "Search over training" not in Page(render([make_run()])).text


@pytest.mark.parametrize(
    "trials", [[], STUDY["trials"][:1], STUDY["trials"][1:2], [trial(0, "running")], [trial(0, "complete", 0.5)] * 2]
)
def test_a_study_with_little_to_show(trials, tmp_path):
    study = {**STUDY, "trials": trials, "importance": {}}
    for title, figure, alt in study_plots(study):
        (tmp_path / "plot.png").write_bytes(png(figure))
        assert title and alt and min(imread(tmp_path / "plot.png").shape[:2]) > 200
    assert len(study_plots(study)) == min(len(trials), 1) + (sum(t["miou"] is not None for t in trials) > 1)
    assert "Search over training" in Page(render([make_run(study=study)])).text
