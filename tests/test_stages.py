"""Long stages are shown on stderr, as lines in a file or a temporary bar on a terminal; short ones are not."""

import os
import pty
import subprocess
import sys
import threading
import time

import pytest

from marsls_keras import progress
from marsls_keras.progress import stage, tracked, write


@pytest.fixture
def soon(monkeypatch):
    """Show stages after 0.1 seconds, and then every 0.3 seconds."""
    monkeypatch.setattr(progress, "FIRST", 0.1)
    monkeypatch.setattr(progress, "EVERY", 0.3)


def test_a_short_stage_says_nothing(capsys):
    with stage("Reading tiles", total=2) as reading:
        reading.advance(2)
    assert list(tracked("Reading tiles", range(3))) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_a_long_stage_says_how_far_it_is_now_and_then(capsys, soon):
    with stage("Reading tiles", total=10) as reading:
        for _ in range(10):
            time.sleep(0.1)
            reading.advance()
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and 2 <= len(lines) <= 4  # at 0.1, 0.4, 0.7 and 1.0 seconds; fewer on a busy machine
    done = [int(line.removeprefix("Reading tiles … ").removesuffix("/10")) for line in lines]
    assert done == sorted(done) and done[-1] > done[0]


def test_what_never_counts_a_step_is_told_of_too(capsys, soon):
    with stage("Building the network"):
        time.sleep(0.25)
    assert capsys.readouterr().err.splitlines() == ["Building the network …"]


def test_the_stage_within_is_the_one_that_is_shown(capsys, soon):
    with stage("Outer"), stage("Inner"):
        time.sleep(0.25)
    assert capsys.readouterr().err.splitlines() == ["Inner …"]


def test_after_an_error_nothing_goes_on(capsys, soon):
    with pytest.raises(ValueError, match="no"), stage("Outer"):
        raise ValueError("no")
    number = threading.active_count()
    time.sleep(0.3)
    assert capsys.readouterr().err == "" and progress._open == [] and threading.active_count() == number


def test_a_stage_that_is_left_in_the_middle_ends(soon, capsys):
    steps = tracked("Predicting", range(5))
    assert next(steps) == 0 and len(progress._open) == 1
    steps.close()
    assert progress._open == []


def test_lines_are_written_to_stderr_as_they_are(capsys):
    write("a [run] :name: of 3")
    assert capsys.readouterr() == ("", "a [run] :name: of 3\n")


HELD_BACK = """
import os, time
from marsls_keras.backend import quiet_stderr
from marsls_keras import progress
progress.FIRST = 0.1
with progress.stage("Importing"), quiet_stderr(False):
    os.write(2, b"chatter")
    time.sleep(0.5)
"""


def test_a_held_back_stderr_does_not_hold_back_progress():
    done = subprocess.run([sys.executable, "-c", HELD_BACK], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "Importing …\n")


SCRIPT = """
import sys, time
from marsls_keras import progress
progress.FIRST = 0.1
with progress.stage("Reading [tiles]", total=4) as reading:
    for i in range(4):
        time.sleep(0.2)
        reading.advance()
        if i == 2:
            progress.write("a line between")
print("result")
"""


def test_a_terminal_shows_a_bar_that_disappears():
    leader, follower = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {
        "TERM": "xterm",
        "COLUMNS": "100",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=follower, text=True, env=environment, timeout=60
    )
    os.close(follower)
    shown = b""
    try:
        while part := os.read(leader, 65536):
            shown += part
    except OSError:  # the other end is closed and all is read
        pass
    os.close(leader)
    text = shown.decode()
    assert done.stdout == "result\n"
    assert "Reading [tiles]" in text and "/4" in text and "a line between" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1 and text.rindex("\x1b[?25h") > text.rindex(
        "\x1b[?25l"
    )
    assert text.rstrip().endswith("\x1b[2K") or "\x1b[2K" in text[text.rindex("\x1b[?25h") :]  # the bar's line is wiped


def test_a_stage_of_hours_says_what_is_left(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    mapping = progress.Stage("Mapping windows", 400, time_left=True)
    assert mapping.line() == "Mapping windows … 0/400"
    for done, seconds, left in ((100, 20, "60 s"), (300, 1800, "10 min"), (200, 20160, "5.6 h")):
        now[0], mapping.done = 1000.0 + seconds, done
        assert mapping.line() == f"Mapping windows … {done}/400, {left} left"
