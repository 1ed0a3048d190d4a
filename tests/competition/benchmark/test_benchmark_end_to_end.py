"""`marsls benchmark` on tiny networks and tiles, killed and gone on with."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.cli import process

TABLE = """
title: Small networks
source: nobody
data: mmls_v1
judged: nothing
recipe: unet
settings:
  data.folds: 2
  model.options.depth: 1
  training.epochs: 4
  training.batch_size: 4
  training.warmup_epochs: 0
  training.ema_decay: null
rows:
  - name: two
    settings: {model.options.base_filters: 2}
    published: {miou: 0.6}
  - name: two, flips
    settings: {model.options.base_filters: 2}
    views: flips
  - name: four
    settings: {model.options.base_filters: 4}
  - name: never
    not_offered: nobody has it
"""


@pytest.mark.slow
def test_a_killed_benchmark_goes_on_and_writes_the_table(tmp_path, data_root, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data_root(tmp_path / "data", train=12, val=4, test=0)
    (tmp_path / "mine.yaml").write_text(TABLE)
    command = ["benchmark", "--table", "mine.yaml", "--epochs", "2", "--folds", "0"]
    killed = subprocess.Popen([sys.executable, "-m", "competition.cli", *command], stderr=subprocess.PIPE, text=True)
    said = []
    for line in killed.stderr:
        said.append(line)
        if "two, regions, seed 0, fold 0: began" in line:
            time.sleep(1)
            os.kill(killed.pid, signal.SIGKILL)
            break
    killed.communicate()
    assert any("two, blocks, seed 0, fold 0: done (1 of 4" in line for line in said), said
    done = process(*command, timeout=600)
    assert done.code == 0, done.err
    assert "two, blocks, seed 0, fold 0: began" not in done.err and "speed of two" not in done.err
    assert "4 trainings, 1 of them done" in done.err
    folder = tmp_path / "runs" / "benchmarks" / "mine"
    with open(folder / "table.csv", encoding="utf-8") as file:
        lines = {(line["row"], line["held_out"]): line for line in csv.DictReader(file)}
    for row in ("two", "two, flips", "four"):
        for part in ("blocks", "regions"):
            line = lines[row, part]
            assert 0 < float(line["miou_low"]) < float(line["miou"]) < float(line["miou_high"]) < 1
            assert float(line["latency"]) > 0 and float(line["memory_host"]) > 0 and line["trainings"] == "1"
    assert int(lines["two", "blocks"]["parameters"]) < int(lines["four", "blocks"]["parameters"])
    assert float(lines["two, flips", "blocks"]["latency"]) == 4 * float(lines["two", "blocks"]["latency"])
    page = (folder / "table.html").read_text(encoding="utf-8")
    assert "The published figures are of MMLS v1, ours of" in page and "nobody has it" in page
    assert "Ours: 16 labelled tiles of MMLS" in page
    again = process(*command, timeout=600)
    assert again.code == 0 and "began" not in again.err, again.err
    budget = process(*command[:3], "--folds", "0", "--budget", "0.1", timeout=600)
    assert budget.code == 0 and "even one epoch takes more than --budget 0.1" in budget.err, budget.err
