"""Workers that share a benchmark: nothing is done twice, and nothing is lost; the jobs' processes only write results."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import optuna
import pytest

from competition.benchmark.plan import Plan
from competition.benchmark.worker import BenchmarkWorker, failures, open_study, results
from competition.search.storage import open_storage
from marsls_keras.config.tables import ResultTable, TableRow
from marsls_keras.errors import InputError

# What the job of a row does is in the environment variable JOBS, {"<depth>": what}; else it is done.
STEP = """
import json, os, pathlib, signal, sys, time, yaml
request = json.loads(sys.stdin.readline())
folder = pathlib.Path(request["folder"])
depth = str(yaml.safe_load((folder / "recipe.yaml").read_text())["model"]["options"]["depth"])
with open(folder.parent / "begun.txt", "a") as file:
    file.write(f"{depth} {request['fold']}\\n")
what = json.loads(os.environ.get("JOBS", "{}")).get(depth, "done")
if what == "fail":
    sys.exit("Error: Training diverged: NaN.")
if what == "kill worker":
    os.kill(os.getppid(), signal.SIGKILL)
    sys.stdin.read()
time.sleep(float(os.environ.get("SECONDS_A_JOB", 0)))
tiles = {name: {"block": ["a"], "tp": [1], "fp": [1], "fn": [1], "tn": [1]} for name in request["predictions"]}
pathlib.Path(request["result"]).write_text(json.dumps({"tiles": tiles, "seconds": 1.0, "memory": {}}))
"""


def plan(depths=(1, 2), folds=(0, 1), **row):
    rows = tuple(TableRow(name=f"d{n}", settings={"model.options.depth": n}, **row) for n in depths)
    table = ResultTable(title="Depths", source="own", recipe="unet", rows=rows)
    return Plan(table, rows, {}, "mmls_v2", folds=folds, partitions=("blocks",))


def work(folder, made, **environment):
    """Do the jobs of a plan in a folder with this process as the worker, and return the study."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(exist_ok=True)
    program = folder / "stand_in.py"
    program.write_text(STEP)

    class StandIn(BenchmarkWorker):
        command = (sys.executable, str(program))

    storage = open_storage(str(folder / "journal.log"))
    study = open_study("depths", storage, "data")
    variables = {**os.environ, **{key: json.dumps(value) for key, value in environment.items()}}
    StandIn(study, storage, made.jobs(), folder, Path("data"), [variables]).run()
    return study


def begun(folder):
    return sorted((folder / "begun.txt").read_text().splitlines())


@pytest.fixture(autouse=True)
def quiet_optuna():
    before = optuna.logging.get_verbosity()
    yield
    optuna.logging.set_verbosity(before)


def test_a_second_command_does_only_what_is_left(tmp_path):
    study = work(tmp_path, plan(folds=(0,)))
    assert begun(tmp_path) == ["1 0", "2 0"]
    assert len(results(study, plan(folds=(0,)).jobs())) == 2
    study = work(tmp_path, plan(depths=(1, 2, 3)))
    assert begun(tmp_path) == ["1 0", "1 1", "2 0", "2 1", "3 0", "3 1"]
    assert len(results(study, plan(depths=(1, 2, 3)).jobs())) == 6


def test_another_way_to_predict_asks_a_finished_job_again(tmp_path):
    work(tmp_path, plan(depths=(1,), folds=(0,)))
    study = work(tmp_path, plan(depths=(1,), folds=(0,), views="flips", threshold=0.4))
    assert begun(tmp_path) == ["1 0", "1 0"]
    (done,) = results(study, plan(depths=(1,), folds=(0,), views="flips", threshold=0.4).jobs()).values()
    assert list(done["tiles"]) == ["flips:0.4"]


def test_a_failure_is_kept_with_its_reason_and_tried_again_by_the_next_command(tmp_path):
    made = plan(folds=(0,))
    study = work(tmp_path, made, JOBS={"1": "fail"})
    assert begun(tmp_path) == ["1 0", "2 0"]
    assert list(failures(study, made.jobs()).values()) == ["exit code 1: Training diverged: NaN."]
    study = work(tmp_path, made)
    assert begun(tmp_path) == ["1 0", "1 0", "2 0"] and failures(study, made.jobs()) == {}


def test_workers_side_by_side_do_each_job_once(tmp_path):
    made = plan(depths=(1, 2, 3), folds=(0, 1, 2))
    threads = [threading.Thread(target=work_in_process, args=(tmp_path, {"SECONDS_A_JOB": 0.2})) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    study = work(tmp_path, made)
    assert begun(tmp_path) == [f"{depth} {fold}" for depth in (1, 2, 3) for fold in (0, 1, 2)]
    assert len(results(study, made.jobs())) == 9


def work_in_process(folder, environment):
    code = (
        "import json, sys; from pathlib import Path; from competition.test_worker_module import plan, work;"
        f"work(Path({str(folder)!r}), plan((1, 2, 3), (0, 1, 2)), **{environment!r})"
    ).replace("competition.test_worker_module", Path(__file__).stem)
    return subprocess.run(
        [sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": paths()}, capture_output=True
    )


def paths():
    return os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])


def test_the_job_of_a_killed_worker_is_done_by_the_next(tmp_path):
    made = plan(folds=(0,))
    code = f"from pathlib import Path; from {Path(__file__).stem} import plan, work;"
    code += f"work(Path({str(tmp_path)!r}), plan(folds=(0,)), JOBS={{'2': 'kill worker'}})"
    killed = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths()}, check=False)
    assert killed.returncode == -9 and begun(tmp_path) == ["1 0", "2 0"]
    study = work(tmp_path, made)
    assert begun(tmp_path) == ["1 0", "2 0", "2 0"] and len(results(study, made.jobs())) == 2


def test_a_benchmark_of_other_tiles_is_refused(tmp_path):
    storage = open_storage(str(tmp_path / "journal.log"))
    open_study("depths", storage, "data")
    with pytest.raises(InputError, match="Benchmark depths was begun on other tiles"):
        open_study("depths", storage, "others")
