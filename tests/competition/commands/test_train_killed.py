"""Training that is killed or stopped at many moments and resumed gives the same result as undisturbed training."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.killed_training import COMMAND
from helpers.killing import KILLER

from marsls_keras.runs.run import read_history

# A training that is killed after its first and its last epoch is in test_train.py, among the tests that always run.
pytestmark = pytest.mark.slow

SETTINGS = [
    *(
        "training.epochs=4",
        "model.options.dropout=0.3",
        "training.patience=3",
        "training.swa_epochs=2",
        "training.ema_warmup=true",
    ),
    *("training.accumulate=2", "augmentation.preset=strong", "data.sampling=windows", "data.window_sizes=[32,48]"),
]
"""Recipe with every kind of state: dropout, patience, both averages, accumulated gradients, windows of two sizes."""


MOMENTS = [
    ("os.rename", r"history\.csv", 1),  # after the first epoch's evaluation, before there is any state
    ("open", r"state/\..*00001_000000\.npz", 1),  # while the state is written: nothing is in the file yet
    ("os.rename", r"00001_000000\.npz", 1),  # written, but not in place
    ("open", r"\.best-.*\.weights\.h5", 2),  # while better weights are written
    ("os.rename", r"00003_000000\.npz", 1),
    ("open", r"oof\.npz", 1),  # after the last epoch, once the best weights have their final name
    ("os.rename", r"metrics\.json", 1),  # before the fold is marked as finished
]


def command(tiny_run, runs: Path) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    named = ["--config", tiny_run.recipe, "--data", tiny_run.data, "--runs", runs, "--fold", "0"]
    return ["train", *map(str, named), *settings, "--resume"]


@pytest.fixture(scope="module")
def undisturbed(tiny_run, tmp_path_factory) -> Path:
    """Train a fold without interruption."""
    runs = tmp_path_factory.mktemp("whole") / "runs"
    subprocess.run([sys.executable, "-m", "competition.cli", *command(tiny_run, runs)], check=True, capture_output=True)
    return runs / "tiny" / "fold_0"


def same(one: Path, other: Path) -> None:
    """Check that two folds are equal except for times."""
    timing = ("seconds", "tiles_per_second")
    first, second = (
        [{k: repr(v) for k, v in row.items() if k not in timing} for row in read_history(f / "history.csv")]
        for f in (one, other)
    )
    assert first == second and len(first) == 4
    weights, predictions = (
        [sorted(path.name for path in folder.glob(kind)) for folder in (one, other)] for kind in ("*.h5", "*.npz")
    )
    assert (
        weights[0] == weights[1]
        and len(weights[0]) == 1
        and predictions[0] == predictions[1]
        and len(predictions[0]) == 1
    )
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in weights[0])
    for file in predictions[0]:
        with np.load(one / file) as a, np.load(other / file) as b:
            assert a.files == b.files and all(a[name].tobytes() == b[name].tobytes() for name in a.files)
    figures = [json.loads((folder / "metrics.json").read_text()) for folder in (one, other)]
    for figure in figures:
        for name in ("seconds", "seconds_with_setup", "finished"):
            del figure[name]
    assert figures[0] == figures[1]


@pytest.mark.parametrize("moments", [MOMENTS[1::2], MOMENTS[::2]])
def test_a_training_killed_again_and_again_ends_as_an_undisturbed_one(tiny_run, undisturbed, tmp_path, moments):
    folder = tmp_path / "runs" / "tiny" / "fold_0"
    for event, pattern, times in moments:
        arguments = [event, pattern, str(times), *command(tiny_run, tmp_path / "runs")]
        done = subprocess.run([sys.executable, "-c", KILLER + COMMAND, *arguments], capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, (pattern, done.stderr)
        assert not (folder / "metrics.json").exists()
    subprocess.run(
        [sys.executable, "-m", "competition.cli", *command(tiny_run, tmp_path / "runs")],
        check=True,
        capture_output=True,
    )
    same(folder, undisturbed)
    assert not [path for path in folder.rglob(".*")]  # what was half written is gone


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_within_the_epoch_and_the_rest_is_the_same(tiny_run, undisturbed, tmp_path, number):
    arguments = [sys.executable, "-c", STOPPER, str(int(number)), *command(tiny_run, tmp_path / "runs")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 128 + number and "Traceback" not in done.stderr
    assert "Stopped in epoch 2, after step 1 of" in done.stderr and done.stderr.rstrip().endswith("--resume.")
    folder = tmp_path / "runs" / "tiny" / "fold_0"
    assert sorted(path.name for path in (folder / "state").iterdir()) == ["00001_000000.npz", "00001_000001.npz"]
    rest = subprocess.run(
        [sys.executable, "-m", "competition.cli", *command(tiny_run, tmp_path / "runs")], capture_output=True, text=True
    )
    assert rest.returncode == 0 and "Resuming after epoch 1 and step 1 of the next." in rest.stderr
    same(folder, undisturbed)


# Sends itself a signal while the first step of the second epoch is under way.
STOPPER = """
import os, signal, sys
import keras
number, *arguments = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell has it ignored
from marsls_keras.training.callbacks import progress

class ProgressDisplay(progress.ProgressDisplay):
    def on_train_batch_begin(self, batch, logs=None):
        if self.rows and len(self.rows) == 1 and batch == 0:
            os.kill(os.getpid(), int(number))

from marsls_keras.training import train_fold as fit
fit.ProgressDisplay = ProgressDisplay
from competition.cli import main
sys.exit(main(arguments))
"""


def test_a_signal_during_evaluation_is_obeyed_before_the_next_epoch(tiny_run, undisturbed, tmp_path):
    # The history is renamed into place after the evaluation of an epoch.
    script = (KILLER + COMMAND).replace("SIGKILL", "SIGTERM")
    done = subprocess.run(
        [sys.executable, "-c", script, "os.rename", r"history\.csv", "2", *command(tiny_run, tmp_path / "runs")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 128 + signal.SIGTERM and "Stopped after epoch 2; the state is saved." in done.stderr
    folder = tmp_path / "runs" / "tiny" / "fold_0"
    assert sorted(path.name for path in (folder / "state").iterdir()) == ["00001_000000.npz", "00002_000000.npz"]
    assert re.search(r"epoch +2/4", (folder / "log.txt").read_text())
    # Torn by a crash of the machine: the state before it is whole, and the epoch is trained again.
    newest = folder / "state" / "00002_000000.npz"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    shutil.copytree(tmp_path / "runs", tmp_path / "again")
    rest = subprocess.run(
        [sys.executable, "-m", "competition.cli", *command(tiny_run, tmp_path / "again")],
        capture_output=True,
        text=True,
    )
    assert rest.returncode == 0 and "Resuming after epoch 1." in rest.stderr
    same(tmp_path / "again" / "tiny" / "fold_0", undisturbed)
