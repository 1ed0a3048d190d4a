"""Files of a fold directory after training, and when training resumes."""

from pathlib import Path

import pytest

from marsls_keras.runs.fold_lock import close, reopen

OTHERS = ["history.csv", "oof.npz", "state/00002_000000.npz"]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "state").mkdir()
    for name in [*OTHERS, "metrics.json"]:
        (tmp_path / name).write_text(name)
    (tmp_path / "best.weights.h5").write_text("ema")
    return tmp_path


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("left", [(), ("ema",)])  # nothing, or files of an interrupted evaluation
def test_a_fold_that_goes_on_has_the_files_that_its_state_names(folder, left):
    for name in left:
        (folder / f"best-{name}.weights.h5").write_text(name)
    best = {"epoch": 0, "miou": 0.5, "weights": "ema", "file": "best-ema.weights.h5"}
    expected = {name: name for name in OTHERS} | {"best-ema.weights.h5": "ema"}
    for _ in range(2):  # also if it was interrupted at this point and is resumed again
        reopen(folder, best)
        assert {name: text for name, text in content(folder).items() if name != "best.weights.h5"} == expected
    assert "ema" in left or not (folder / "best.weights.h5").exists()


def test_a_finished_fold_keeps_what_it_needs(folder):
    before = content(folder)
    for name in ("best-00001-abc.weights.h5", ".12.best.last.weights.h5", "state/00001_000000.npz"):
        (folder / name).write_text("")
    close(folder)
    assert content(folder) == before
