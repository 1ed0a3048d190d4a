"""A search without training: each trial is a real process that writes the files of a trained one, or fails."""

import json
import os
import sys
from pathlib import Path

from competition.search.space import Space
from competition.search.study import StudyPlan, StudyWorker
from marsls_keras.config import Recipe

# What trial number n does is in the environment variable TRIALS, {"<n>": what}; else it finishes.
TRIAL = """
import json, os, pathlib, signal, sys, time, yaml
order = json.loads(sys.stdin.readline())
folder = pathlib.Path(order["folder"])
with open(folder.parent / "begun.txt", "a") as file:
    file.write(f"{folder.name} {os.getpid()}\\n")
what = json.loads(os.environ.get("TRIALS", "{}")).get(folder.name.removeprefix("trial_"), "finish")
if what == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "fail":
    sys.exit("Error: Training diverged: NaN.")
if what == "prune":
    sys.exit(3)
if what == "wait":
    sys.stdin.read()  # until whoever started it has ended
    sys.exit(1)
if what == "nothing":
    sys.exit(0)
time.sleep(float(os.environ.get("SECONDS_A_TRIAL", 0)))
rate = yaml.safe_load((folder / "recipe.yaml").read_text())["training"]["learning_rate"]
for i, fold in enumerate(order["folds"]):
    path = folder / f"fold_{fold}"
    (path / "state").mkdir(parents=True)
    (path / "state" / "00001_000000.npz").write_bytes(b"state")
    for name in ("best.weights.h5", "oof.npz", "history.csv", "log.txt"):
        (path / name).write_bytes(b"content")
    counts = {"tp": 100 * (i + 1), "fp": round(1000 * rate), "fn": 20, "tn": 900}
    tp, fp, fn, tn = counts.values()
    scores = {"iou_fg": tp / (tp + fp + fn), "iou_bg": tn / (tn + fp + fn), "f1": 2 * tp / (2 * tp + fp + fn)}
    scores |= {"miou": sum(list(scores.values())[:2]) / 2, "precision": tp / (tp + fp), "recall": tp / (tp + fn)}
    judged = {"best_epoch": 0, "best_weights": "last", "weights_sha256": "00" * 32, "scores": scores, "counts": counts}
    took = {"seconds": 1.0, "seconds_with_setup": 2.0, "finished": "now"}
    plan = {"fold": fold, "epochs": 1, "tiles": 2, "batch_size": 1, "accumulate": 1, "trouble": []}
    (path / "metrics.json").write_text(json.dumps({**judged, **took, **plan}))
"""


def miou(rate, folds=1):
    """Return the mIoU over the pixels of all folds of a trial, from the counts in TRIAL."""
    tp, fp, fn, tn = 100 * sum(range(1, folds + 1)), folds * round(1000 * rate), folds * 20, folds * 900
    return (tp / (tp + fp + fn) + tn / (tn + fp + fn)) / 2


def plan(folder, trials=4, folds=(0,), space=None, storage=None, sha256="data", **settings):
    """Return a plan with a learning rate from 0.001 to 0.1, of which the lowest is the best."""
    recipe = Recipe(search=space or {"training.learning_rate": {"low": 1e-3, "high": 0.1, "log": True}}, **settings)
    return StudyPlan(
        Path(folder),
        "study",
        Space.of(recipe),
        Path("data"),
        sha256,
        list(folds),
        trials,
        "none",
        storage or f"{folder}/journal.log",
    )


def search(made, storage, folder, jobs=1, **environment):
    """Return a worker whose trials run TRIAL."""
    program = Path(folder) / "stand_in.py"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(TRIAL)
    trials = {key: value if isinstance(value, str) else json.dumps(value) for key, value in environment.items()}

    class StandIn(StudyWorker):
        command = (sys.executable, str(program))

    return StandIn(made, storage, [{**os.environ, **trials}] * jobs)


def begun(folder):
    """Return the trials that were begun, in order, and their processes."""
    return [line.split() for line in (Path(folder) / "begun.txt").read_text().splitlines()]
