"""Usage and configuration errors come before TensorFlow or Keras are imported; some commands need neither."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from marsls_keras.models.networks import NETWORKS

RUNNER = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from competition.cli import main
found = []
for arguments in json.loads(sys.stdin.read()):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code
    loaded = sorted({"tensorflow", "keras", "jax"} & set(sys.modules))
    found.append([code, out.getvalue(), err.getvalue(), loaded])
    if loaded:
        break
print(json.dumps(found))
"""

TRAIN = ["train", "--config", "tiny.yaml", "--data", "data", "--run"]
CASES = {
    "unknown recipe": (["train", "--config", "defualt"], "Did you mean default?"),
    "network as recipe": (["train", "--config", "segmenter"], "--set model.name=segmenter"),
    "unknown key": (["train", "--set", "training.lr=1"], "did you mean learning_rate?"),
    "wrong value": (["train", "--set", "training.epochs=many"], "training.epochs: Input should be a valid integer"),
    "bad --set": (["train", "--set", "training.epochs"], "expected section.key=value"),
    "unknown band": (["train", "--set", "data.bands=[elevation]"], "Did you mean dem?"),
    "unknown loss": (["train", "--set", "loss={focale: 1}"], "Did you mean focal?"),
    "unknown loss parameter": (["train", "--set", "loss={focal: {gama: 1}}"], "Did you mean gamma?"),
    "unknown preset": (["train", "--set", "augmentation.preset=stong"], "Did you mean strong?"),
    "unknown views in recipe": (["train", "--set", "inference.view_sets=[flip]"], "Did you mean flips?"),
    "unknown model": (["train", "--set", "model.name=unett"], "Did you mean unet?"),
    "unknown option": (["train", "--config", "unet", "--set", "model.options.filters=4"], "Did you mean base_filters?"),
    "type of an option": (
        ["train", "--config", "unet", "--set", "model.options.depth=deep"],
        "model.options.depth: expected int",
    ),
    "unknown encoder": (
        ["train", "--config", "dual_swin", "--set", "model.options.encoder=resnet"],
        "encoder must be one of",
    ),
    "no levels": (
        ["train", "--config", "mars_ls_net", "--set", "training.layer_decay=0.9"],
        "the network has no encoder with levels",
    ),
    "no checkpoint": (["train", "--pretrained", "nowhere.safetensors"], "There is no checkpoint nowhere.safetensors"),
    "no data": (["train", "--data", "nowhere"], "There is no data folder nowhere"),
    "data is a file": (["train", "--data", "tiny.yaml"], "tiny.yaml is a file, expected a data folder"),
    "bands missing": (["stack", "--out", "new.tif"], "No raster holds red, green, blue, dem, thermal, gray"),
    "no composite": (["tile", "nowhere.tif", "--labels", "a.gpkg", "--out", "new"], "There is no raster nowhere.tif"),
    "size of a region": (["synth", "new", "--mosaic", "9"], "--mosaic 9: expected width x height"),
    "no such fold": ([*TRAIN, "new", "--fold", "9"], "There is no fold 9"),
    "fold is no number": ([*TRAIN, "new", "--fold", "first"], "--fold first"),
    "name of a run": ([*TRAIN, "a/b"], "--run a/b"),
    "size": ([*TRAIN, "new", "--set", "model.options.depth=6"], "--set data.resize=64"),
    "other configuration": ([*TRAIN, "tiny", "--set", "training.seed=9"], "has another configuration"),
    "trained already": ([*TRAIN, "tiny", "--fold", "0"], "Fold 0 of run tiny is finished."),
    "jobs and devices": (["train", "--jobs", "2", "--devices", "2"], "give one of them"),
    "pseudo without full": (["train", "--pseudo", "data/test"], "--pseudo"),
    "resume and overwrite": (["train", "--resume", "--overwrite"], "give one of them"),
    "report: out is a folder": (["report", "tiny", "--out", "data"], "--out data is a folder"),
    "usage of train": (["train", "--nope"], "No such option"),
    "tune: no run": (["tune", "--run", "tinny"], "Did you mean tiny?"),
    "tune: views": (["tune", "--run", "tiny", "--views", "flip"], "Did you mean flips?"),
    "tune: folds": (["tune", "--run", "tiny", "--folds", "a"], "--folds a"),
    "tune: no such fold": (["tune", "--run", "tiny", "--folds", "7"], "7"),
    "tune: data gone": (["tune", "--run", "tiny", "--data", "nowhere"], "nowhere"),
    "tune: data a file": (["tune", "--run", "tiny", "--data", "tiny.yaml"], "tiny.yaml is a file"),
    "tune: option of training": (["tune", "--storage", "x"], "It is an option of marsls search"),
    "search: value": (["search", "--set", "training.epochs=x"], "training.epochs"),
    "search: no data": (["search", "--config", "tiny.yaml", "--data", "nowhere"], "There is no data folder nowhere"),
    "search: earlier name": (["tune", "training", "--set", "training.epochs=x"], "training.epochs"),
    "tune: earlier name": (["tune", "decision", "--run", "tinny"], "Did you mean tiny?"),
    "submit: no run": (["submit", "--run", "nope"], "There is no run 'nope'"),
    "submit: run twice": (["submit", "--run", "tiny", "--run", "tiny"], "is given twice"),
    "submit: weights": (["submit", "--run", "tiny@ema"], "RUN@SET was removed"),
    "submit: folds": (["submit", "--run", "tiny", "--folds", "0;1"], "--folds 0;1"),
    "submit: no images": (["submit", "--run", "tiny", "--images", "nowhere"], "There is no folder nowhere"),
    "submit: images a file": (
        ["submit", "--run", "tiny", "--images", "tiny.yaml"],
        "tiny.yaml is a file, expected a folder",
    ),
    "submit: verify": (["submit", "--verify", "x.zip"], "--verify needs the test images"),
    "predict: no run": (["predict", "nope", "--images", "data/test", "--out", "o"], "There is no run 'nope'"),
    "predict: no images": (["predict", "tiny", "--images", "nowhere", "--out", "o"], "There is no folder nowhere"),
    "predict: out is a file": (["predict", "tiny", "--images", "data/test", "--out", "tiny.yaml"], "is a file"),
    "evaluate: no run": (["evaluate", "nope"], "There is no run 'nope'"),
    "evaluate: split": (["evaluate", "tiny", "--split", "nope"], "Invalid value"),
    "evaluate: runs is a file": (
        ["evaluate", "tiny", "--runs", "tiny.yaml"],
        "tiny.yaml is a file, expected a folder of runs",
    ),
    "score: no masks": (["score", "x.zip", "--masks", "nowhere"], "There is no folder nowhere"),
    "report: no run": (["report", "nope"], "There is no run 'nope'"),
    "report: no ledger": (["report", "tiny", "--ledger", "nope.csv"], "There is no ledger nope.csv"),
    "check: no data": (["check", "nowhere"], "There is no data folder nowhere"),
    "check: plot": (["check", "data", "--plot", "x.txt"], "--plot x.txt"),
    "bench: recipe": (["bench", "--config", "segmenter"], "--set model.name=segmenter"),
    "bench: model": (["bench", "--set", "model.name=unett"], "Did you mean unet?"),
    "bench: size": (
        ["bench", "--config", "tiny.yaml", "--data", "data", "--set", "model.options.depth=6"],
        "--set data.resize=64",
    ),
    "bench: seconds": (["bench", "--seconds", "0"], "--seconds 0"),
    "benchmark: nothing": (["benchmark"], "--table NAME, one of dualswin-3"),
    "benchmark: table": (["benchmark", "--table", "mmlsv2_2"], "Did you mean mmlsv2-2?"),
    "benchmark: no figures": (["benchmark", "--table", "rmau-5"], "lists derived bands, without scores"),
    "benchmark: recipe": (["benchmark", "--table", "mmlsv2-2", "--config", "best"], "a table has a recipe of its own"),
    "benchmark: model": (["benchmark", "--models", "unet,unett"], "Did you mean unet?"),
    "benchmark: row": (["benchmark", "--table", "marslsnet-3", "--rows", "S-3"], "there is no such row"),
    "benchmark: key": (["benchmark", "--models", "unet", "--set", "training.lr=1"], "did you mean learning_rate?"),
    "benchmark: fold": (["benchmark", "--models", "unet", "--folds", "9"], "--folds 9"),
    "benchmark: budget": (["benchmark", "--models", "unet", "--epochs", "1", "--budget", "5"], "give one of them"),
    "benchmark: no data": (["benchmark", "--models", "unet", "--data", "nowhere"], "There is no data folder nowhere"),
    "recipes: usage": (["recipes", "--nope"], "No such option"),
    "models: usage": (["models", "--nope"], "No such option"),
    "synth: number": (["synth", "made", "--size", "3"], "size must be at least"),
    "ledger: phase": (["ledger", "add", "x.zip", "--phase", "7", "--score", "0.5"], "--phase 7"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory, tiny_run):
    """Run every case in one new process, which stops as soon as a backend is imported."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(tiny_run.data, home / "data")
    shutil.copytree(tiny_run.path, home / "runs/tiny")
    shutil.copy(tiny_run.recipe, home / "tiny.yaml")
    environment = {name: value for name, value in os.environ.items() if name not in ("MARSLS_DATA", "MARSLS_RUNS")}
    arguments = json.dumps([case for case, _ in CASES.values()])
    done = subprocess.run(
        [sys.executable, "-c", RUNNER], input=arguments, capture_output=True, text=True, cwd=home, env=environment
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout), strict=False))


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_is_refused_without_a_backend(answers, case):
    assert case in answers, f"a backend was imported by: {list(answers)[-1]}"
    code, out, err, loaded = answers[case]
    assert loaded == []
    assert code == 2 and out == "" and CASES[case][1] in err, (code, out, err)


def test_what_needs_no_backend_imports_none():
    arguments = json.dumps(
        [["models", "--json"], ["recipes"], ["--help"], ["train", "--help"], ["--version"], ["doctor"]]
    )
    done = subprocess.run([sys.executable, "-c", RUNNER], input=arguments, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert [(code, loaded) for code, _, _, loaded in found] == [(0, [])] * 6
    assert "baseline" in found[1][1]
    assert {row["name"] for row in json.loads(found[0][1])} == set(NETWORKS)


def test_the_list_of_commands_needs_no_arrays():
    script = (
        "import sys, competition.cli; print([name for name in ('numpy', 'pydantic', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
