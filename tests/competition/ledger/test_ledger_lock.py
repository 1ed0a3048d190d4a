"""Two processes that write into one ledger at once, and one that finds it locked."""

import csv
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

from competition.ledger import ledger
from competition.ledger.ledger import Ledger, append_ledger
from marsls_keras.errors import InputError, RunError

TIMES = 60
WAIT = "import pathlib, time\nprint('ready', flush=True)\nwhile not pathlib.Path('go').exists(): time.sleep(0.001)\n"
SUBMIT = f"""
from competition.ledger.ledger import append_ledger
{WAIT}
for i in range({TIMES}): append_ledger('ledger.csv', {{'zip': f'{{i}}.zip'}})
"""
ADD = f"""
from pathlib import Path
from competition.ledger.answers import record
{WAIT}
for i in range({TIMES}): record(Path('theirs.zip'), 1 + i % 2, i / 100, ledger=Path('ledger.csv'))
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(ledger.__file__).parents[2]))


def test_no_line_and_no_answer_is_lost():
    """One adds lines as submit does, the other changes those of a zip as ledger add does."""
    with zipfile.ZipFile("theirs.zip", "w") as archive:
        archive.writestr("x.tif", b"")
    writers = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for code in (SUBMIT, ADD)
    ]
    assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
    Path("go").touch()
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    with open("ledger.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["zip"] for row in rows if row["zip"] != "theirs.zip"] == [f"{i}.zip" for i in range(TIMES)]
    answers = {row["phase"]: row["score"] for row in rows if row["zip"] == "theirs.zip"}
    assert answers == {"1": "0.58", "2": "0.59"} and len(rows) == TIMES + 2


def test_a_ledger_that_stays_locked_is_left_alone(monkeypatch):
    append_ledger("ledger.csv", {"time": "2026", "zip": "a.zip"})
    before = Path("ledger.csv").read_bytes()
    monkeypatch.setattr(ledger, "_PATIENCE", 0.1)
    with (
        FileLock(".ledger.csv.lock"),
        pytest.raises(RunError, match="Could not write ledger.csv: .*lock.* Nothing was changed"),
    ):
        append_ledger("ledger.csv", {"zip": "b.zip"})
    assert Path("ledger.csv").read_bytes() == before
    append_ledger("ledger.csv", {"zip": "b.zip"})
    assert [row["zip"] for row in Ledger.read("ledger.csv").rows()] == ["a.zip", "b.zip"]


def test_what_is_refused_leaves_no_lock():
    Path("text.csv").write_text("a,b\n")
    with pytest.raises(InputError, match="not a ledger"):
        append_ledger("text.csv", {"zip": "b.zip"})
    assert [path.name for path in Path().iterdir()] == ["text.csv"]


def test_where_no_lock_can_be_made():
    Path("submissions/.ledger.csv.lock").mkdir(parents=True)
    with pytest.raises(RunError, match="Could not write submissions/ledger.csv: Is a directory. Nothing was changed"):
        append_ledger("submissions/ledger.csv", {"zip": "a.zip"})
    assert not Path("submissions/ledger.csv").exists()
