"""The same map from several processes and from a Ray cluster, also after workers were killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import ray
from helpers.rasters import write_raster

from marsls_keras.errors import InputError, RunError
from marsls_keras.mapping.map_raster import MapRequest, map_raster
from marsls_keras.mapping.ray_engine import compute_on_ray
from marsls_keras.mapping.workers import compute_in_processes

CORES = {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def raster(tmp_path_factory) -> Path:
    image = np.random.default_rng(0).uniform(0.1, 0.9, (1100, 540, 7)).astype(np.float32)
    return write_raster(tmp_path_factory.mktemp("raster") / "valles.tif", image)


def request(raster: Path, out: Path, tiny_run, **options) -> MapRequest:
    settings = {"names": [tiny_run.name], "runs": tiny_run.runs, "stride": 32, "polygons": False, "folds": [0]}
    return MapRequest(str(raster), out, **settings | options)


@pytest.fixture(scope="module")
def expected(tmp_path_factory, raster, tiny_run) -> bytes:
    """The map that this process computes alone."""
    out = tmp_path_factory.mktemp("maps") / "valles"
    map_raster(request(raster, out, tiny_run))
    return (out / "probability.tif").read_bytes()


def children(name: str) -> list[int]:
    """Return the numbers of the processes below this one whose command holds a name."""
    table = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True).stdout
    split = [line.split(None, 2) for line in table.splitlines()[1:]]
    rows = [(int(pid), int(parent), command) for pid, parent, command in split]
    below = {os.getpid()}
    while more := {pid for pid, parent, _ in rows if parent in below} - below:  # numbers start again at some time
        below |= more
    return [pid for pid, _, command in rows if pid in below and name in command]


def kill_one(name: str, out: Path, killed: list[int]) -> None:
    """Kill the first process of a name once a shard is finished."""
    end = time.time() + 300
    while time.time() < end and not killed:
        if list((out / "shards").glob("[0-9]*.tif")) and (there := children(name)):
            os.kill(there[0], signal.SIGKILL)
            killed.append(there[0])
        time.sleep(0.01)


@pytest.mark.slow
def test_processes_make_the_same_map_though_one_is_killed(raster, expected, tiny_run, tmp_path, caplog):
    out, killed = tmp_path / "out", []
    killer = threading.Thread(target=kill_one, args=("marsls_keras.mapping.worker", out, killed))
    killer.start()
    found = map_raster(request(raster, out, tiny_run, environments=[CORES, CORES]))
    killer.join()
    assert killed and (out / "probability.tif").read_bytes() == expected and found.computed == 6
    assert sum("ended with code -9 over shard" in record.message for record in caplog.records) == 1
    assert not children("marsls_keras.mapping.worker")


@pytest.mark.slow
def test_a_killed_map_goes_on_with_the_same_command(raster, expected, tiny_run, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "competition.cli", "map", raster, "-o", out, "--run", tiny_run.name]
    command += ["--runs", tiny_run.runs, "--stride", "32", "--no-polygons", "--folds", "0"]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list((out / "shards").glob("[0-9]*.tif"))) < 2:
        time.sleep(0.005)
    process.kill()
    process.wait()
    kept = len(list((out / "shards").glob("[0-9]*.tif")))
    found = map_raster(request(raster, out, tiny_run))
    assert 2 <= kept < 6 and found.computed == 6 - kept
    assert (out / "probability.tif").read_bytes() == expected


@pytest.mark.slow
def test_a_ray_cluster_makes_the_same_map_though_an_actor_is_killed(raster, expected, tiny_run, tmp_path, monkeypatch):
    out, killed = tmp_path / "out", []
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "240")  # on a busy machine
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": CORES})
    try:
        killer = threading.Thread(target=kill_one, args=("ray::_Actor", out, killed))
        killer.start()
        map_raster(request(raster, out, tiny_run, ray="auto", environments=[{}, {}]))
        killer.join()
    finally:
        ray.shutdown()
    assert killed and (out / "probability.tif").read_bytes() == expected


@pytest.mark.slow
def test_ray_without_a_cluster_and_an_actor_without_input_are_told(raster, tiny_run, tmp_path):
    with pytest.raises(InputError, match="--ray auto: there is no Ray cluster .*ray start --head"):
        list(compute_on_ray(tmp_path, tiny_run.runs, str(raster), [0], "auto", None, print))


def test_a_worker_that_cannot_read_its_input_says_so_and_is_not_started_again(tmp_path):
    with pytest.raises(InputError, match=r"map.json does not exist"):
        list(compute_in_processes(tmp_path, tmp_path, "none.tif", [0, 1], [{}], print))


def test_a_shard_over_which_every_process_ends_is_the_reason(tmp_path, monkeypatch):
    # A process that ends at once, as one that the system kills: Python refuses this seed.
    with pytest.raises(RunError, match="3 processes ended over shard 7, the last with code 1"):
        list(compute_in_processes(tmp_path, tmp_path, "none.tif", [7], [{"PYTHONHASHSEED": "none"}], print))
