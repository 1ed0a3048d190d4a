"""A search on a real PostgreSQL server that the test starts: two workers, one of them killed, and the real command."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import optuna
import pytest
from helpers.searches import begun, plan, search
from helpers.workers import alive, wait_for, worker
from optuna.storages import fail_stale_trials

from competition.search import storage
from competition.search.storage import open_storage, reason_of

optuna.logging.set_verbosity(optuna.logging.WARNING)

pytestmark = pytest.mark.slow  # a server of its own, and workers that wait for each other's heartbeats


@pytest.fixture(scope="module")
def server():
    """Start a server on a free port and return its URL; under root it runs as postgres, as initdb refuses root."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = [folder for folder in programs if (folder / "initdb").exists() and (folder / "pg_ctl").exists()]
    if not found:
        pytest.skip("there is no PostgreSQL server: apt-get install postgresql brings one")
    folder = Path(tempfile.mkdtemp(prefix="marsls-postgres-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user = []
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]

    def run(program, *arguments):
        # To files: the server would keep a pipe open.
        with open(os.devnull, "w") as nowhere:
            command = [*user, str(found[-1] / program), *arguments]
            subprocess.run(command, check=True, cwd="/", stdout=nowhere, stderr=nowhere, timeout=60)

    run("initdb", "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    try:
        run("pg_ctl", "-D", f"{folder}/data", "-l", f"{folder}/log", "-w", "-o", options, "start")
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            run("pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.filterwarnings("error:Heartbeat of storage", "ignore:.*fail_stale_trials is experimental")
def test_two_workers_of_which_one_is_killed(server, tmp_path, monkeypatch):
    """As on two machines, each has its own folder; both create the tables at the same time."""
    folders = [tmp_path / "a", tmp_path / "b"]
    hang = '{"0": "wait", "1": "wait", "2": "wait", "3": "wait", "4": "wait", "5": "wait"}'
    doomed = worker(folders[0], server, 6, TRIALS=hang)  # whatever trial it gets, it is killed during it
    other = worker(folders[1], server, 6, SECONDS_A_TRIAL="0.5")
    wait_for(lambda: (folders[0] / "begun.txt").exists())
    (lost, pid), *more = begun(folders[0])
    doomed.kill()
    doomed.wait()
    wait_for(lambda: not alive(int(pid)), 10)
    assert other.wait(120) == 0 and more == []
    # The heartbeat may have been too fresh for the other worker to give the trial up; whoever goes on does.
    monkeypatch.setattr(storage, "HEARTBEAT", 1)
    opened = open_storage(server)
    study = optuna.load_study(storage=opened, study_name="study")

    def given_up():
        fail_stale_trials(study)
        return study.get_trials()[int(lost.removeprefix("trial_"))].state.is_finished()

    wait_for(given_up, 20)
    study = search(plan(folders[1], 7, storage=server), opened, folders[1]).run()
    assert [trial.number for trial in study.trials] == list(range(7))
    failed = [trial for trial in study.trials if trial.state.name == "FAIL"]
    assert [f"trial_{trial.number}" for trial in failed] == [lost] and reason_of(
        failed[0]
    ) == "its worker ended without a word"
    assert {trial.state.name for trial in study.trials if trial not in failed} == {"COMPLETE"}
    names = [name for folder in folders for name, _ in begun(folder)]
    assert sorted(names) == [f"trial_{i}" for i in range(7)]  # each trial was begun once
    assert len({trial.params["training.learning_rate"] for trial in study.trials}) == 7


def test_the_command_on_postgresql(server, tiny_run, tmp_path):
    command = [
        sys.executable,
        "-m",
        "competition.cli",
        "tune",
        "training",
        "--config",
        str(tiny_run.recipe),
        "--data",
        str(tiny_run.data),
    ]
    command += ["--runs", str(tmp_path), "--run", "pg", "--trials", "2", "--epochs", "1", "--storage", server]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "2 trials (2 complete)" in done.stdout and (tmp_path / "pg/search/best.yaml").exists()
    assert not (tmp_path / "pg/search/journal.log").exists()
    study = optuna.load_study(storage=open_storage(server), study_name="pg")
    assert [len(trial.intermediate_values) for trial in study.trials] == [
        1,
        1,
    ]  # reported from the trials' own processes
