"""`marsls demo`. The complete run takes minutes and is marked as slow; its start and its errors take seconds."""

import shutil
import zipfile
from pathlib import Path

import pytest
from helpers.cli import limited, marsls, process, snapshot


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    Path("demo").mkdir()
    Path("demo/thesis.txt").write_text("years of work")
    before = snapshot(".")
    result = marsls("demo")
    assert (result.code, result.out) == (2, "")
    assert result.err == "Error: demo is not empty and not from an earlier demo. Choose another folder with --out.\n"
    assert snapshot(".") == before


def test_a_file_in_the_place_of_the_folder():
    Path("demo").write_text("mine")
    result = marsls("demo")
    assert (result.code, result.out) == (2, "")
    assert result.err == "Error: demo is not a folder. Choose another one with --out.\n"
    assert Path("demo").read_text() == "mine"


def test_a_step_that_fails_ends_the_tour():
    result = limited("demo", "--out", "tour")
    assert result.code == 1
    assert result.out == "\n$ marsls synth tour/data --train 48 --val 12 --test 16\n"
    assert (
        "\nError: Could not write " in f"\n{result.err}"
        and "File too large" in result.err
        and result.err.count("Error: ") == 1
    )
    assert not Path("tour/data").exists()

    # It is the tour's folder all the same, which the next one replaces.
    Path("tour/runs").mkdir()
    loud = limited("--debug", "demo", "--out", "tour")
    assert not Path("tour/runs").exists()
    assert loud.code == 1 and "\nTraceback" in f"\n{loud.err}" and "in write_dataset" in loud.err
    assert loud.err.splitlines()[-1].startswith("Error: Could not write ")


@pytest.mark.slow
def test_the_whole_tour():
    """It replaces the folder of an earlier run, and ends with a zip and a report."""
    Path("demo").mkdir()
    for name in (".marsls-demo", "left-over"):
        Path("demo", name).write_text("")
    result = process("demo", timeout=1800)
    assert result.code == 0, result
    assert not Path("demo/left-over").exists()
    steps = [line.split()[2] for line in result.out.splitlines() if line.startswith("$ marsls ")]
    assert steps == ["synth", "check", "train", "tune", "submit", "score", "report"]
    told = (
        "Training unet",
        "demo fold",
        "Predicting",
        "Run demo, fold",
        "The folds of run demo are no regions",
        "These images lie outside",
        "Next: open it in a web browser.",
    )
    assert [line for line in result.err.splitlines() if not line.startswith(told) and "…" not in line] == []

    with zipfile.ZipFile("demo/submissions/demo.zip") as archive:
        assert sorted(archive.namelist()) == sorted(path.name for path in Path("demo/data/test/images").iterdir())
    assert "demo" in Path("demo/runs/demo/report.html").read_text(encoding="utf-8")
    assert "The verified zip is demo/submissions/demo.zip, the page demo/runs/demo/report.html." in result.out
    scored = next(
        line for line in result.out.split("$ marsls score")[1].splitlines() if line.strip().startswith("pooled")
    )
    assert float(scored.split()[1]) > 0.6  # it has learnt something: all background gives less than 0.5

    shutil.rmtree("demo/runs/demo/fold_0/tensorboard")
    assert marsls("report", "demo", "--runs", "demo/runs").code == 0  # what it leaves is an ordinary run
