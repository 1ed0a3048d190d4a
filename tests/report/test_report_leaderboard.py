"""Chart of expected and actual leaderboard scores in the report."""

import numpy as np
import pytest
from helpers.reports import Page, make_run, rows_of

from marsls_keras.report import Answer
from marsls_keras.report.leaderboard import leaderboard_chart
from marsls_keras.report.page import render

ANSWERS = [
    Answer("a.zip", "1", 0.60, 0.70, (0.65, 0.75)),
    Answer("b $x$ <b>.zip", "1", 0.73, 0.72, (0.70, 0.74)),
    Answer("c.zip", "2", 0.50, 0.81, None),
    Answer("d.zip", "1", 0.33, None, None),
]


def test_the_chart_shows_every_answer_with_its_interval():
    (axes,) = leaderboard_chart(ANSWERS).axes
    first, second = axes.containers
    np.testing.assert_allclose(first.lines[0].get_xydata(), [(0.70, 0.60), (0.72, 0.73)])
    np.testing.assert_allclose(second.lines[0].get_xydata(), [(0.81, 0.50)])
    np.testing.assert_allclose(
        first.lines[2][0].get_segments(), [[(0.65, 0.60), (0.75, 0.60)], [(0.70, 0.73), (0.74, 0.73)]]
    )
    assert (first.get_label(), second.get_label()) == ("phase 1 (2)", "phase 2 (1)")
    diagonal = next(line for line in axes.lines if line.get_label() == "as expected").get_xydata()
    np.testing.assert_array_equal(diagonal[:, 0], diagonal[:, 1])
    assert axes.get_xlim() == axes.get_ylim() == pytest.approx(tuple(diagonal[:, 0]))
    assert diagonal[0, 0] < 0.5 and diagonal[1, 0] > 0.81


def test_an_interval_that_does_not_hold_its_figure():
    (axes,) = leaderboard_chart([Answer("a.zip", "1", 0.9, 0.99, (0.95, 0.98))]).axes
    np.testing.assert_allclose(axes.containers[0].lines[2][0].get_segments(), [[(0.95, 0.9), (0.99, 0.9)]])
    assert axes.get_xlim()[1] <= 1


def test_no_chart_where_nothing_was_expected():
    assert leaderboard_chart(ANSWERS[3:]) is None
    page = render([make_run()], None, ANSWERS[3:])
    assert rows_of(page, "submission") == [["d.zip", "1", "–", "–", "0.3300", "–"]]
    assert "Expected and actual mIoU of submissions" not in page


def test_the_section_of_the_page():
    page = render([make_run()], None, ANSWERS)
    parsed = Page(page)
    assert rows_of(page, "submission")[:2] == [
        ["a.zip", "1", "0.7000", "0.6500 – 0.7500", "0.6000", "-0.1000"],
        ["b $x$ &lt;b&gt;.zip", "1", "0.7200", "0.7000 – 0.7400", "0.7300", "+0.0100"],
    ]
    (alt,) = [alt for alt in parsed.attributes("img", "alt") if "expected and actual" in alt]
    assert alt.startswith(
        "Chart of expected and actual mIoU of 3 submissions: a.zip 0.7000 and 0.6000, b $x$ <b>.zip 0.7200 and 0.7300"
    )
    assert "<h2>Leaderboard</h2>" not in render([make_run()])
