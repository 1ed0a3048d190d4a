"""Folds trained at once, each in its own process."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from competition.cli import main
from competition.processes import device_environments, train_side_by_side, worker_environments
from marsls_keras.errors import RunError
from marsls_keras.runs.run import Run, read_history

# Python runs it before anything else, in every process that has its folder on the path.
WAITS_AFTER_AN_EPOCH = """
import os, signal, sys, time

def hook(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith("history.csv"):
        handler = signal.getsignal(signal.SIGTERM)
        open(os.path.join(os.path.dirname(__file__), f"waits-{os.getpid()}"), "w").close()
        while signal.getsignal(signal.SIGTERM) is handler:  # given back when a signal has come
            time.sleep(0.05)

sys.addaudithook(hook)
"""

SPEAKS_AND_SLEEPS = """
import os, sys, time
open(os.path.join(os.path.dirname(__file__), f"process-{os.getpid()}"), "w").close()
print("hello", file=sys.stderr, flush=True)
time.sleep(60)
"""


@pytest.fixture
def startup(tmp_path, monkeypatch):
    """Return a function that makes all new processes run code at their start, and returns the code's folder."""

    def install(code: str) -> Path:
        folder = tmp_path / "startup"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        return folder

    return install


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").is_dir() else True


@pytest.mark.slow
def test_folds_at_once_stop_at_a_signal_and_resume_to_the_result_of_one_after_the_other(
    tiny_run, tmp_path, startup, monkeypatch, capsys
):
    # Sums over threads depend on how many there are, and the run that is compared with had them all.
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", str(os.cpu_count()))
    runs = tiny_run.copy(tmp_path / "runs")
    command = ["train", "--run", tiny_run.name, "--runs", str(runs), "--jobs", "2"]
    folder = startup(WAITS_AFTER_AN_EPOCH)
    marsls = [sys.executable, "-m", "competition.cli"]
    parent = subprocess.Popen(
        [*marsls, *command, "--overwrite"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: len(list(folder.glob("waits-*"))) == 2)
        for option in ("--resume", "--overwrite"):
            assert main(["train", "--run", tiny_run.name, "--runs", str(runs), "--fold", "1", option]) == 2
            assert "fold_1 is being trained by another process" in capsys.readouterr().err
        parent.send_signal(signal.SIGTERM)
        out, err = parent.communicate(timeout=60)
    finally:
        parent.kill()
    assert parent.returncode == 128 + signal.SIGTERM and not out and "Traceback" not in err
    assert err.rstrip().endswith(
        "Stopped with all folds; the state is saved. Go on with the same command and --resume."
    )
    for fold in (0, 1):
        assert f"fold {fold}: Training unet" in err and f"fold {fold} · epoch   1/2" in err
        assert f"fold {fold}: Stopped after epoch 1; the state is saved." in err
        assert [path.name for path in (runs / "tiny" / f"fold_{fold}" / "state").iterdir()] == ["00001_000000.npz"]

    (folder / "sitecustomize.py").unlink()
    rest = subprocess.run([*marsls, *command, "--resume"], capture_output=True, text=True)
    assert rest.returncode == 0, rest.stderr
    assert "fold 0, epoch" in rest.stdout and "fold 1, epoch" in rest.stdout and "Next: marsls tune" in rest.stdout
    timing = ("seconds", "tiles_per_second")
    for fold in (0, 1):
        assert f"fold {fold}: Resuming after epoch 1." in rest.stderr
        new, first = runs / "tiny" / f"fold_{fold}", tiny_run.path / f"fold_{fold}"
        assert (runs / "tiny" / f"fold_{fold}.old" / "metrics.json").read_bytes() == (
            first / "metrics.json"
        ).read_bytes()
        assert (new / "best.weights.h5").read_bytes() == (first / "best.weights.h5").read_bytes()
        a, b = (
            [{k: v for k, v in row.items() if k not in timing} for row in read_history(f / "history.csv")]
            for f in (new, first)
        )
        assert a == b
        with np.load(new / "oof.npz") as a, np.load(first / "oof.npz") as b:
            assert all(a[name].tobytes() == b[name].tobytes() for name in b.files)


@pytest.mark.slow
def test_a_single_fold_is_trained_as_without_jobs(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", str(os.cpu_count()))
    runs = tiny_run.copy(tmp_path / "runs")
    command = ["train", "--run", tiny_run.name, "--runs", str(runs), "--jobs", "2", "--fold", "0", "--overwrite"]
    done = subprocess.run([sys.executable, "-m", "competition.cli", *command], capture_output=True, text=True)
    assert done.returncode == 0 and "\nTraining unet" in f"\n{done.stderr}"
    weights = [folder / "tiny" / "fold_0" / "best.weights.h5" for folder in (runs, tiny_run.runs)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.slow
def test_jobs_on_several_machines_begin_a_run_together(tiny_run, tmp_path):
    command = [
        "train",
        "--config",
        str(tiny_run.recipe),
        "--data",
        str(tiny_run.data),
        "--runs",
        str(tmp_path / "runs"),
        "--resume",
    ]
    jobs = [
        subprocess.Popen(
            [sys.executable, "-m", "competition.cli", *command, "--fold", fold], stderr=subprocess.PIPE, text=True
        )
        for fold in ("0", "1")
    ]
    said = [job.communicate(timeout=300)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    assert Run.open(tmp_path / "runs" / "tiny").finished_folds() == [0, 1]


def test_a_fold_that_fails_is_named_and_stops_no_other(tmp_path, caplog):
    synth = ["synth", str(tmp_path / "made"), "--train=4"]
    commands = {0: ["check", str(tmp_path / "none")], 1: ["--version"], 2: ["no-such-command"], 3: synth}
    with pytest.raises(RunError) as error:
        train_side_by_side(commands, [{}, {}])
    text = str(error.value)
    assert (
        text.startswith("2 of 4 folds failed:")
        and text.endswith("The others are trained.")
        and error.value.exit_code == 1
    )
    assert f"fold 0 (exit code 2): There is no data folder {tmp_path / 'none'}" in text
    assert "fold 2 (exit code 2): No such command" in text and "fold 1" not in text and "fold 3" not in text
    assert (tmp_path / "made" / "train" / "images").is_dir()
    assert any(line.startswith("fold 0: Error: ") for line in caplog.messages)


def test_no_more_folds_run_at_once_than_there_are_environments(startup):
    folder = startup("""
import os, time
mine = os.path.join(os.path.dirname(__file__), "running", os.environ["DEVICE"])
os.mkdir(mine)  # fails where another process has the device
time.sleep(0.2)
os.rmdir(mine)
open(os.path.join(os.path.dirname(__file__), f"done-{os.environ['DEVICE']}-{os.getpid()}"), "w").close()
""")
    (folder / "running").mkdir()
    train_side_by_side({fold: ["--version"] for fold in range(5)}, [{"DEVICE": "a"}, {"DEVICE": "b"}])
    done = sorted(path.name[:6] for path in folder.glob("done-*"))
    assert len(done) == 5 and set(done) == {"done-a", "done-b"}


def test_nothing_goes_on_when_nobody_listens(startup, monkeypatch):
    folder = startup(SPEAKS_AND_SLEEPS)

    class Closed(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise BrokenPipeError(record.getMessage())

    monkeypatch.setattr(logging.getLogger("competition.processes"), "handlers", [Closed()])
    began = time.monotonic()
    with pytest.raises(BrokenPipeError, match="hello"):
        train_side_by_side({0: ["--version"], 1: ["--version"], 2: ["--version"]}, [{}, {}])
    assert time.monotonic() - began < 30
    pids = [int(path.name.removeprefix("process-")) for path in folder.glob("process-*")]
    assert pids
    wait_for(lambda: not any(alive(pid) for pid in pids), 10)


def test_without_a_gpu_the_folds_share_the_cores(startup, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # the user's own
    shared = worker_environments(3)
    share = str(max(1, (os.cpu_count() or 1) // 3))
    assert [(each["TF_NUM_INTRAOP_THREADS"], each["OMP_NUM_THREADS"]) for each in shared] == [(share, "7")] * 3
    folder = startup("""
import os
name = f"threads-{os.environ['TF_NUM_INTRAOP_THREADS']}-{os.getpid()}"
open(os.path.join(os.path.dirname(__file__), name), "w").close()
""")
    train_side_by_side({0: ["--version"]}, [{}, {}])
    assert [path.name.split("-")[1] for path in folder.iterdir() if path.name.startswith("threads")] == [
        str(os.cpu_count())
    ]


def test_folds_at_once_have_one_device_each(tmp_path, capsys):
    assert main(["train", "--runs", str(tmp_path), "--jobs", "2", "--devices", "2"]) == 2
    assert "--jobs 2 and --devices 2: give one of them" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_counting_gpus_that_fails_says_why(startup):
    startup("import sys\nsys.exit('no driver')")
    with pytest.raises(RunError, match="could not be counted: .*no driver"):
        device_environments(2)
