"""What a fold's directory holds when it is finished, and when it goes on."""

from pathlib import Path

import pytest

from marsls_keras.runs.fold_lock import close, reopen

OTHERS = ["history.csv", "oof.npz", "state/00002_000000.npz"]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "state").mkdir()
    for name in [*OTHERS, "metrics.json", "oof.last.npz", "oof.swa.npz"]:
        (tmp_path / name).write_text(name)
    for name, content in {"best": "ema", "best.last": "last", "best.swa": "last"}.items():
        (tmp_path / f"{name}.weights.h5").write_text(content)
    return tmp_path


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def kept(file: str) -> dict:
    return {"epoch": 0, "miou": 0.5, "weights": "whatever", "file": file}


@pytest.mark.parametrize("left", [(), ("last",), ("ema", "last")])  # nothing, or what a fold has that was stopped while it was finished
def test_a_fold_that_goes_on_has_the_files_that_its_state_names(folder, left):
    for name in left:
        (folder / f"best-{name}.weights.h5").write_text(name)
    # The average of the last epochs is equal to the last weights here, so they are one file.
    each = {"ema": kept("best-ema.weights.h5"), "last": kept("best-last.weights.h5"), "swa": kept("best-last.weights.h5")}
    expected = {name: name for name in OTHERS} | {"best-ema.weights.h5": "ema", "best-last.weights.h5": "last"}
    for _ in range(2):  # also if it was stopped just then, and goes on once more
        reopen(folder, each["ema"], each)
        assert {name: text for name, text in content(folder).items() if name != "best.weights.h5"} == expected
    assert "ema" in left or not (folder / "best.weights.h5").exists()


def test_a_finished_fold_keeps_the_best_of_each_set(folder):
    before = content(folder)
    for name in ("best-00001-abc.weights.h5", ".12.best.last.weights.h5", "state/00001_000000.npz"):
        (folder / name).write_text("")
    close(folder)
    assert content(folder) == before
