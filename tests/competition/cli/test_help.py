"""The help of all commands, completion in the shell, and `marsls doctor`."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version

import pytest
import typer
from helpers.cli import strict_json, succeed

from competition.cli.app import app
from marsls_keras.data.synthetic.mars import write_dataset

COMMANDS = typer.main.get_command(app).commands


def complete(line, folder):
    """Return what bash would offer for a line of which the last word is begun."""
    words = line.split(" ")
    environment = {"_MARSLS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    program = "import sys; from competition.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **environment},
    )
    return done.stdout.split()


@pytest.mark.parametrize("command", [[], ["ledger"], ["ledger", "add"], *([name] for name in COMMANDS)], ids=" ".join)
def test_flags_have_no_type(command):
    shown = succeed(*command, "--help").out
    assert "--help" in shown and "<bool>" not in shown


def test_tune_and_search_have_their_own_options():
    tune, search = (succeed(command, "--help").out for command in ("tune", "search"))
    assert "--storage" not in tune and "--views" in tune
    assert "--storage" in search and "--views" not in search
    assert succeed("tune", "training", "--help").out == search and succeed("tune", "decision", "--help").out == tune


def test_the_shell_completes_commands_and_recipes(tmp_path):
    assert complete("marsls se", tmp_path) == ["search"]
    assert complete("marsls train --config rmau", tmp_path) == ["rmau_net", "rmau_net_s"]


def test_the_shell_completes_runs(tmp_path):
    for name in ("first", "fast", "unet"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").touch()
    assert complete("marsls report f", tmp_path) == ["fast", "first"]


def test_doctor_lists_versions_data_and_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "data", "mmls_v2", train=3, val=1, test=2, size=32)
    (tmp_path / "runs/mine/fold_1").mkdir(parents=True)
    (tmp_path / "runs/mine/splits.json").touch()
    (tmp_path / "runs/mine/fold_1/metrics.json").touch()
    found = strict_json(succeed("doctor", "--json").out)
    assert found["versions"]["python"] == platform.python_version()
    assert found["packages"]["keras"] == version("keras") and found["packages"]["numpy"] == version("numpy")
    assert found["machine"]["cpu_cores"] == len(os.sched_getaffinity(0))
    assert found["data"]["splits"] == {
        "train": {"images": 3, "masks": 3},
        "val": {"images": 1, "masks": 1},
        "test": {"images": 2, "masks": 2},
    }
    assert (found["runs"], found["problems"]) == ({"mine": 1}, [])
    shown = succeed("doctor").out
    assert "Data in data: train 3 images and 3 masks" in shown and "Runs: mine (1 fold trained)" in shown
    assert shown.endswith("\nNext: marsls check data\n")


def test_doctor_imports_the_backend_only_when_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "backend" not in json.loads(succeed("doctor", "--json").out)
    asked = succeed("doctor", "--devices")
    assert "Backend: tensorflow uses " in asked.out and "none found" in asked.out


def test_doctor_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    empty = "import importlib.metadata as m; "
    empty += "m.version = lambda name: (_ for _ in ()).throw(m.PackageNotFoundError(name)); "
    code = empty + "from competition.cli import main; raise SystemExit(main(['doctor']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "Problem: keras is not installed" in done.stdout
    assert 'not installed: jax (the other backend, KERAS_BACKEND=jax); pip install "marsls-keras[jax]"' in done.stdout
