"""Atomic writes, damaged JSON, and digests."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from marsls_keras.errors import InputError, RunError
from marsls_keras.files import atomic, atomic_folder, read_json, sha256, write_json, write_text


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "table.csv"
    with atomic(path) as temporary:
        temporary.write_text("half")
        assert temporary.parent == path.parent and temporary.suffix == ".csv" and temporary.name.startswith(".")
        assert not path.exists()
    assert path.read_text() == "half"
    assert os.listdir(path.parent) == ["table.csv"]


def test_an_earlier_file_is_replaced_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "first")
    with atomic(path) as temporary:
        temporary.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second"


@pytest.mark.parametrize("failure", [ValueError("mine"), KeyboardInterrupt(), InputError("mine")])
def test_a_failing_block_leaves_the_earlier_file_and_its_own_error(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "first")
    with pytest.raises(type(failure)), atomic(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert path.read_text() == "first" and os.listdir(tmp_path) == ["a.txt"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"Could not write .*a\.txt: No such file"), atomic(tmp_path / "a.txt"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.txt", tmp_path / "file" / "folder" / "a.txt"):
        with pytest.raises(RunError, match=r"Could not write .*a\.txt: (Not a directory|File exists)"):
            write_text(path, "text")


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="File name too long"):
        write_text(tmp_path / ("x" * 300), "text")


def test_a_full_disk(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"first": True})
    code = """
import resource, sys
from marsls_keras.errors import RunError
from marsls_keras.files import write_json
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_json(sys.argv[1], ["text"] * 1000)
except RunError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", code, str(tmp_path / "a.json")]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.startswith(f"Could not write {tmp_path / 'a.json'}: File too large. Nothing was changed")
    assert read_json(tmp_path / "a.json") == {"first": True} and os.listdir(tmp_path) == ["a.json"]


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"name": "Läufe", "list": [1, 2.5, None, True], "nested": {"a": []}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    content = (tmp_path / "a.json").read_bytes()
    assert content.endswith(b"}\n") and "Läufe".encode() in content


def test_a_value_that_is_no_json_leaves_the_earlier_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"path": Path()})
    assert read_json(tmp_path / "a.json") == 1 and os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b'{"a": 1}}', b"\xff\xfe\x00", b"name: yaml", b"\0" * 20])
def test_damaged_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json is damaged: "):
        read_json(tmp_path / "a.json")


def test_missing_json(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.json does not exist"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").mkdir()
    with pytest.raises(InputError, match=r"a\.json cannot be read: Is a directory"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("size", [0, 1, 1_000_003])
def test_sha256(tmp_path: Path, size: int) -> None:
    content = bytes(i % 251 for i in range(size))
    (tmp_path / "a.bin").write_bytes(content)
    assert sha256(tmp_path / "a.bin") == hashlib.sha256(content).hexdigest()


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "new" / "data") as temporary:
        write_text(temporary / "train" / "a.txt", "half")
        assert not (tmp_path / "new" / "data").exists()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.txt")] == ["new/data/train/a.txt"]
    assert os.listdir(tmp_path / "new") == ["data"]


def test_an_empty_folder_is_filled_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    before = (tmp_path / "data").stat().st_ino
    with atomic_folder(tmp_path / "data") as temporary:
        write_text(temporary / "a.txt", "whole")
    assert os.listdir(tmp_path / "data") == ["a.txt"] and (tmp_path / "data").stat().st_ino == before


@pytest.mark.parametrize("failure", [ValueError("mine"), KeyboardInterrupt(), InputError("mine")])
def test_a_failing_block_leaves_no_folder(tmp_path: Path, failure: BaseException) -> None:
    with pytest.raises(type(failure)), atomic_folder(tmp_path / "data") as temporary:
        write_text(temporary / "a.txt", "half")
        raise failure
    assert os.listdir(tmp_path) == []


def test_a_folder_in_use_is_refused_and_a_full_disk_named(tmp_path: Path) -> None:
    write_text(tmp_path / "data" / "mine.txt", "kept")
    for place in (tmp_path / "data", tmp_path / "data" / "mine.txt"):
        with pytest.raises(InputError, match="is not an empty folder"), atomic_folder(place):
            pass
    with pytest.raises(RunError, match="Could not write .*new: No space left"), atomic_folder(tmp_path / "new"):
        raise OSError(28, "No space left")
    assert os.listdir(tmp_path) == ["data"]
