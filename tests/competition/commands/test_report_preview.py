"""The preview of augmented tiles in the report of the real command."""

from helpers.reports import Page

from competition.commands import report


def test_the_command_shows_what_the_run_was_trained_with(tiny_run, tmp_path):
    path = report.report([tiny_run.name], tiny_run.runs, tmp_path / "report.html", None)
    parsed = Page(path.read_text(encoding="utf-8"))
    assert "What training sees" in parsed.text and sum("draw" in alt for alt in parsed.attributes("img", "alt")) == 30
