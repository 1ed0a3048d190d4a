"""Runs trained by a version that read the files of a release differently."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marsls_keras.config import Config, Data
from marsls_keras.data.decoded.load import load
from marsls_keras.data.fingerprint import fingerprint
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.splits import make_splits
from marsls_keras.data.synthetic.mars import write_dataset
from marsls_keras.errors import InputError
from marsls_keras.runs.run import Run


@pytest.fixture
def begun(tmp_path: Path) -> Callable[[str], tuple[Path, dict[str, Any]]]:
    """Return a function that begins a run on tiles of a release, and returns it with its fingerprint."""

    def begin(release: str) -> tuple[Path, dict[str, Any]]:
        write_dataset(tmp_path / release, release, train=4, val=2, test=0, size=32)
        tiles = load(Dataset.open(tmp_path / release))
        found = fingerprint(tiles, tmp_path / release)
        Run.create(tmp_path / "runs" / release, Config(), make_splits(tiles, Data(folds=2), seed=0), found)
        return tmp_path / "runs" / release, found

    return begin


def rewrite(path: Path, content: dict[str, Any]) -> None:
    (path / "fingerprint.json").write_text(json.dumps(content))


def test_an_older_reading_of_mmls_v1_is_refused(begun: Callable) -> None:
    path, found = begun("mmls_v1")
    assert found["reading"] == 2 and Run.open(path).fingerprint == found
    rewrite(path, {key: value for key, value in found.items() if key != "reading"})
    with pytest.raises(
        InputError, match=r"runs/mmls_v1 .*reading 1 of mmls_v1.*slope and thermal.*Train it again.*marsls-keras 0\.1"
    ):
        Run.open(path)
    rewrite(path, found | {"reading": 3})
    with pytest.raises(InputError, match=r"reading 3 of mmls_v1.*has reading 2.*install the version that trained it"):
        Run.open(path)


@pytest.mark.parametrize("release", ["mmls_v2", "challenge"])
def test_runs_on_other_releases_still_open(begun: Callable, release: str) -> None:
    path, found = begun(release)
    assert found["reading"] == 1
    rewrite(path, {key: value for key, value in found.items() if key != "reading"})
    assert "reading" not in Run.open(path).fingerprint
