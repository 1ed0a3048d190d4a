"""Workers of a search: ends of trials, files on disk, resuming, and several workers on one study."""

import json
import logging
import signal
import subprocess
import sys
import time

import optuna
import pytest
import yaml
from helpers.searches import begun, miou, plan, search
from helpers.workers import alive, wait_for, worker
from optuna.trial import TrialState

from competition.search.pruning import MONITOR, Pruning
from competition.search.storage import open_storage, reason_of
from competition.search.study import best_trial, pooled_miou
from competition.search.trial import build_pruner
from marsls_keras.config import load_config
from marsls_keras.errors import InputError, RunError

optuna.logging.set_verbosity(optuna.logging.WARNING)


def test_failed_trials_are_recorded_with_their_reason_and_stop_nothing(tmp_path, caplog):
    made = plan(tmp_path, trials=6)
    what = {"1": "kill", "2": "fail", "3": "prune", "4": "nothing"}
    study = search(made, open_storage(f"{tmp_path}/journal.log"), tmp_path, TRIALS=what).run()
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "FAIL", "FAIL", "PRUNED", "FAIL", "COMPLETE"]
    assert reason_of(study.trials[1]) == "its process was ended by SIGKILL, as the system does when memory runs out"
    assert reason_of(study.trials[2]) == "exit code 1: Training diverged: NaN."
    assert "it left no result" in reason_of(study.trials[4]) and "metrics.json" in reason_of(study.trials[4])
    assert "Trial 2 failed: exit code 1: Training diverged: NaN." in caplog.messages
    for number in (0, 5):
        trial = study.trials[number]
        assert trial.value == pytest.approx(miou(trial.params["training.learning_rate"]), abs=1e-12)
    rows = json.loads((tmp_path / "study.json").read_text())["trials"]
    assert [row["state"] for row in rows] == [state.lower() for state in states]
    assert [row["reason"] is not None for row in rows] == [state == "FAIL" for state in states]


class GivesUpTrial0(logging.Handler):
    """Worker that records trial 0 as failed as soon as it has begun."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def emit(self, record):
        if record.getMessage().startswith("Trial 0: "):
            storage = open_storage(self.path)
            storage.set_trial_state_values(storage.get_all_trials(0)[0]._trial_id, TrialState.FAIL)


def test_a_trial_that_another_worker_has_given_up_stops_nothing(tmp_path):
    """This happens after a machine slept for longer than heartbeats may be late."""
    path = f"{tmp_path}/journal.log"
    other = GivesUpTrial0(path)
    logger = logging.getLogger("competition.search.study")
    logger.addHandler(other)
    try:
        study = search(plan(tmp_path, trials=2), open_storage(path), tmp_path, TRIALS={"0": "fail"}).run()
    finally:
        logger.removeHandler(other)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]
    assert reason_of(study.trials[0]) == "its worker ended without a word"


def test_the_best_trial_is_a_recipe_and_of_the_others_small_files_stay(tmp_path):
    study = search(plan(tmp_path, trials=5, folds=(0, 1)), open_storage(f"{tmp_path}/journal.log"), tmp_path).run()
    rates = [trial.params["training.learning_rate"] for trial in study.trials]
    values = [trial.value for trial in study.trials]
    assert values == pytest.approx([miou(rate, folds=2) for rate in rates], abs=1e-12)  # over the pixels of both folds
    best = max(range(5), key=lambda i: (values[i], -i))
    assert best_trial(study).number == best
    _, config = load_config(str(tmp_path / "best.yaml"))
    assert config.training.learning_rate == rates[best]
    spelled = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert (
        set(spelled) == {"model", "data", "augmentation", "loss", "training", "inference", "plugins"}
        and len(spelled["training"]) > 15
    )
    for number in range(5):
        for fold in ("fold_0", "fold_1"):
            kept = {
                path.relative_to(tmp_path / f"trial_{number}" / fold).as_posix()
                for path in (tmp_path / f"trial_{number}" / fold).rglob("*")
            }
            large = {"best.weights.h5", "oof.npz", "state", "state/00001_000000.npz"} if number == best else set()
            assert kept == {"history.csv", "log.txt", "metrics.json"} | large
    with pytest.raises(InputError, match="fold_2"):
        pooled_miou(tmp_path / "trial_0", [0, 2])


def test_a_study_goes_on_with_other_draws_and_ends_at_its_number_of_trials(tmp_path):
    path = tmp_path / "journal.log"
    search(plan(tmp_path, trials=2), open_storage(str(path)), tmp_path).run()
    study = search(plan(tmp_path, trials=4), open_storage(str(path)), tmp_path).run()
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
    assert len({trial.params["training.learning_rate"] for trial in study.trials}) == 4
    assert len(search(plan(tmp_path, trials=3), open_storage(str(path)), tmp_path).run().trials) == 4
    assert [name for name, _ in begun(tmp_path)] == ["trial_0", "trial_1", "trial_2", "trial_3"]


def test_a_study_that_an_earlier_version_began_goes_on(tmp_path):
    storage = open_storage(f"{tmp_path}/journal.log")
    made = plan(tmp_path, trials=1)
    old = made.space.base.model_dump(mode="json")
    old["training"]["keep_each"] = False  # a key of version 0.2
    study = optuna.create_study(study_name="study", storage=storage, direction="maximize")
    study.set_user_attr("config", old)
    assert len(search(made, storage, tmp_path).run().trials) == 1


def test_another_search_does_not_go_on_with_the_study(tmp_path):
    path = tmp_path / "journal.log"
    search(plan(tmp_path, trials=1), open_storage(str(path)), tmp_path).run()
    for changes, expected in (
        ({"training": {"epochs": 7}}, "training.epochs: 60 → 7"),
        ({"folds": (1,)}, r"folds: \[0\] → \[1\]"),
        ({"space": {"training.batch_size": [1, 2]}}, "search: .*batch_size"),
        ({"sha256": "others"}, "the tiles in the data folder"),
    ):
        with pytest.raises(
            InputError, match=f"(?s)Study study was begun otherwise.*{expected}.*another name with --run"
        ):
            search(plan(tmp_path, **changes), open_storage(str(path)), tmp_path)
    path.unlink()  # the trials are still there, and another study must not write over them
    with pytest.raises(InputError, match="holds trials of another study, such as trial_0"):
        search(plan(tmp_path), open_storage(str(path)), tmp_path)


def test_trials_at_once_are_no_more_than_jobs(tmp_path):
    made = plan(tmp_path, trials=4)
    began = time.monotonic()
    study = search(made, open_storage(f"{tmp_path}/journal.log"), tmp_path, jobs=2, SECONDS_A_TRIAL="1").run()
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 4
    spans = [(trial.datetime_start, trial.datetime_complete) for trial in study.trials]
    at_once = [sum(a <= start < b for a, b in spans) for start, _ in spans]
    assert max(at_once) == 2 and time.monotonic() - began > 2


def test_two_workers_share_a_study_without_duplicates(tmp_path):
    workers = [worker(tmp_path, tmp_path / "journal.log", 6, SECONDS_A_TRIAL="0.3") for _ in range(2)]
    assert [process.wait(120) for process in workers] == [0, 0]
    storage = open_storage(f"{tmp_path}/journal.log")
    study = optuna.load_study(storage=storage, study_name="study")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 6
    assert sorted(name for name, _ in begun(tmp_path)) == sorted(f"trial_{i}" for i in range(6))
    assert len({trial.params["training.learning_rate"] for trial in study.trials}) == 6


def test_a_worker_that_is_killed_takes_its_trial_with_it_and_another_goes_on(tmp_path, caplog):
    first = worker(tmp_path, tmp_path / "journal.log", 4, TRIALS=json.dumps({"1": "wait"}))
    wait_for(lambda: (tmp_path / "begun.txt").exists() and len(begun(tmp_path)) == 2)
    trial = int(begun(tmp_path)[1][1])
    assert alive(trial)
    first.kill()
    first.wait()
    wait_for(lambda: not alive(trial), 10)
    study = search(plan(tmp_path, trials=4), open_storage(f"{tmp_path}/journal.log"), tmp_path).run()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert "Trial 1 is given up: its worker is gone." in caplog.messages


def test_a_signal_ends_the_trials_and_says_so(tmp_path):
    process = worker(tmp_path, tmp_path / "journal.log", 3, TRIALS=json.dumps({"0": "wait"}))
    wait_for(lambda: (tmp_path / "begun.txt").exists())
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0  # the command makes an exit code of it
    study = optuna.load_study(storage=open_storage(f"{tmp_path}/journal.log"), study_name="study")
    assert [(trial.state, reason_of(trial)) for trial in study.trials] == [(TrialState.FAIL, "stopped by SIGTERM")]
    assert not alive(int(begun(tmp_path)[0][1]))


def test_a_monitor_that_does_not_exist_is_an_error():
    trial = optuna.create_study(direction="maximize").ask()
    with pytest.raises(RunError, match="watches val_miou, but an epoch has only loss, miou"):
        Pruning(trial, first=0).on_epoch_end(0, {"loss": 1.0, "miou": 0.5})


@pytest.mark.parametrize("name", ["none", "median", "asha", "hyperband"])
def test_hopeless_trials_are_stopped_early_and_folds_are_counted_on(name):
    """Trials of two folds of 9 epochs; the better ones come first, so that a pruner has something to go by."""
    study = optuna.create_study(direction="maximize", study_name="s", pruner=build_pruner(name, 18))
    pruned = []
    for quality in [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]:
        trial = study.ask()
        try:
            for fold in range(2):
                watching = Pruning(trial, first=9 * fold)
                for epoch in range(9):
                    watching.on_epoch_end(epoch, {MONITOR: quality})
            study.tell(trial, quality)
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
            pruned.append(quality)
    assert list(study.trials[0].intermediate_values) == list(range(18))
    assert (pruned == []) == (name == "none") and 0.9 not in pruned
    assert name not in ("median", "asha") or 0.05 in pruned  # hyperband lets some trials go on whatever they are


@pytest.mark.slow
def test_a_real_trial_that_diverges_is_recorded_and_the_best_recipe_trains(tiny_run, tmp_path):
    def marsls(*arguments):
        command = [
            sys.executable,
            "-m",
            "competition.cli",
            *arguments,
            "--data",
            str(tiny_run.data),
            "--runs",
            str(tmp_path),
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=280)

    keys = "search={training.learning_rate: [1e+30, 0.01]}"
    done = marsls(
        "tune",
        "training",
        "--config",
        str(tiny_run.recipe),
        "--set",
        keys,
        "--trials",
        "4",
        "--epochs",
        "1",
        "--run",
        "nan",
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "nan/search/study.json").read_text())["trials"]
    ended = {(row["parameters"]["training.learning_rate"], row["state"]) for row in rows}
    assert ended == {(1e30, "fail"), (0.01, "complete")}  # both values come up in four draws
    assert all("diverged: NaN or infinite loss" in row["reason"] for row in rows if row["state"] == "fail")
    best = tmp_path / "nan/search/best.yaml"
    assert f"Next: marsls train --config {best} --run nan --epochs 2" in done.stdout
    trained = marsls("train", "--config", str(best), "--run", "nan", "--epochs", "2")
    assert trained.returncode == 0, trained.stderr
    report = marsls("report", "nan")
    assert report.returncode == 0 and "Search over training" in (tmp_path / "nan/report.html").read_text(
        encoding="utf-8"
    )
