"""Temporary files of killed processes are removed by the next write to the folder, and nothing else is."""

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

from filelock import FileLock
from helpers.killing import KILLER

from marsls_keras import temporary_files
from marsls_keras.data.decoded.disk_cache import _sweep
from marsls_keras.files import write_json, write_text

KILLED = KILLER + "\nfrom marsls_keras.files import write_json\nwrite_json(sys.argv[1], [1, 2])\n"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_what_a_killed_process_left_is_removed_by_the_next_that_writes_there(tmp_path, monkeypatch):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, "os.rename", r"\.a\.json$", "1", str(tmp_path / "a.json")], env=ENVIRONMENT
    )
    assert done.returncode == -signal.SIGKILL and len(hidden(tmp_path)) == 1
    (left,) = hidden(tmp_path)
    place, process, _ = left.split(".")[1].split("-")
    alive = [f".{place}-{number}-00000000.b.zip" for number in (os.getpid(), os.getppid(), 1)]
    others = [
        f".ffffffff-{process}-00000000.b.zip",
        ".fold_0.lock",
        ".gitignore",
        f".{process}",
        ".00000000.old.json",
        "a-1-b.json",
    ]
    for name in (*alive, *others):
        (tmp_path / name).write_text("theirs")
    monkeypatch.setattr(temporary_files, "_swept", {})
    write_text(tmp_path / "b.txt", "b")  # another file of the same folder
    assert set(os.listdir(tmp_path)) == {*alive, *others, "b.txt"}


def test_a_living_process_keeps_its_file(tmp_path):
    code = "import sys\nfrom marsls_keras.files import atomic\n"
    code += "with atomic(sys.argv[1]) as path:\n    path.write_text('x')\n"
    code += "    print(path.name, flush=True)\n    sys.stdin.read()\n"
    command = [sys.executable, "-c", code, str(tmp_path / "a.txt")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT) as process:
        name = process.stdout.readline().decode().strip()
        write_json(tmp_path / "b.json", 1)
        assert hidden(tmp_path) == [name]
        process.stdin.close()
        assert process.wait() == 0
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.json"]


def test_the_name_keeps_the_suffixes_and_is_never_the_same(tmp_path):
    names = {temporary_files.temporary_beside(tmp_path / "best.weights.h5").name for _ in range(100)}
    assert len(names) == 100 and all(
        name.endswith(".best.weights.h5") and temporary_files._OURS.match(name) for name in names
    )
    with zipfile.ZipFile(temporary_files.temporary_beside(tmp_path / "a.zip"), "w") as archive:
        archive.writestr("a", "a")


def test_unfinished_entries_of_the_cache_are_removed_unless_someone_makes_them(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f".{name}.unfinished").mkdir()
        (tmp_path / f".{name}.unfinished" / "0.bin").write_bytes(b"half")
    (tmp_path / "a-1").mkdir()
    with FileLock(tmp_path / ".b.lock"):
        _sweep(tmp_path, tmp_path / ".c.unfinished")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        ".b.unfinished",
        ".c.unfinished",
        "a-1",
    ]
