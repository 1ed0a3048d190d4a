"""The refit on all tiles: its plan, its training and files, and its use for prediction only."""

import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.killed_training import COMMAND
from helpers.killing import KILLER
from helpers.pointwise import PERFECT, compiled, pointwise, training, training_batches

from competition.cli import main
from competition.commands import tune
from competition.commands.predict import PredictRequest, predict
from competition.commands.submit import SubmitRequest, submit
from marsls_keras.config import read_config
from marsls_keras.errors import InputError
from marsls_keras.inference.ensemble import predict_ensemble
from marsls_keras.inference.prediction_inputs import PredictionInputs
from marsls_keras.runs.run import Run, read_history
from marsls_keras.training.callbacks.last_checkpoint import LastCheckpoint
from marsls_keras.training.refit import RefitPlan, plan_refit
from marsls_keras.tuning.out_of_fold import pool_tiles


@pytest.fixture
def run(tiny_run, tmp_path) -> Run:
    return Run.open(tiny_run.copy(tmp_path / "runs") / tiny_run.name)


def change(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def command(run: Run, *options: object) -> list[str]:
    return ["train", "--run", run.name, "--runs", str(run.path.parent), "--fold", "full", *map(str, options)]


# --- The plan ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("best", "warmup", "swa", "epochs"),
    [
        ((4, 7), 3, 0, 6),
        ((4, 10), 3, 0, 8),
        ((0, 0), 0, 0, 1),
        ((0, 1), 3, 0, 4),
        ((0, 1), 2.5, 0, 3),
        ((1, 1), 0, 5, 5),
    ],
)
def test_the_epochs_are_the_rounded_mean_of_the_folds_but_more_than_the_warm_up(run, best, warmup, swa, epochs):
    """Best epochs are counted from 0: (5 + 11) / 2 is 8; (5 + 8) / 2 is 6.5, of which Python makes the even 6."""
    text = (run.path / "config.yaml").read_text()
    text = re.sub(
        "warmup_epochs: [0-9.]+", f"warmup_epochs: {warmup}", re.sub("swa_epochs: 0", f"swa_epochs: {swa}", text)
    )
    text = re.sub(r"\bepochs: 2\b", "epochs: 20", text)
    for folder in (run.path, run.fold_path(0), run.fold_path(1)):
        (folder / "config.yaml").write_text(text)
    for fold in (0, 1):
        change(run.fold_path(fold) / "metrics.json", best_epoch=best[fold], epochs=20)
    plan = plan_refit(Run.open(run.path))
    assert (plan.epochs, plan.folds, plan.best_epochs) == (epochs, (0, 1), tuple(epoch + 1 for epoch in best))
    assert plan_refit(Run.open(run.path), 17).epochs == 17


@pytest.mark.parametrize(
    ("kept", "expected"), [(("last", "last"), "last"), (("last", "ema"), "ema"), (("ema", "ema"), "ema")]
)
def test_the_weights_are_those_of_most_folds(run, kept, expected):
    for fold in (0, 1):
        change(run.fold_path(fold) / "metrics.json", best_weights=kept[fold])
    assert plan_refit(run).weights == expected


def test_only_finished_folds_are_asked_and_without_any_the_epochs_must_be_given(run):
    shutil.rmtree(run.fold_path(1))
    assert plan_refit(run).folds == (0,)
    (run.fold_path(0) / "metrics.json").unlink()
    with pytest.raises(InputError, match="no finished fold.*--epochs"):
        plan_refit(run)
    assert plan_refit(run, 3) == RefitPlan(3, "ema", (), (), ())


def test_the_command_refuses_before_it_writes(tiny_run, tmp_path, capsys):
    options = ["--config", tiny_run.recipe, "--data", tiny_run.data, "--runs", tmp_path / "runs", "--fold", "full"]
    assert main(["train", *map(str, options)]) == 2
    assert "no finished fold" in capsys.readouterr().err and not (tmp_path / "runs").exists()
    assert main(["train", *map(str, options), "--epochs", "0"]) == 2
    assert "training.epochs" in capsys.readouterr().err and not (tmp_path / "runs").exists()


# --- What is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["last", "ema", "swa"])
def test_the_set_of_weights_that_was_decided_on_is_kept_after_the_last_epoch_alone(tmp_path, weights):
    config = training(epochs=3, ema_decay=0.5, swa_epochs=2)
    model, metric = compiled(pointwise(), config)
    keep = LastCheckpoint(weights, metric, tmp_path, config, training_batches(3))
    keep.set_model(model)
    ends = [(5.0, 1.0), (1.0, 0.5), PERFECT]
    for epoch, (kernel, bias) in enumerate(ends):
        model.set_weights([np.full((1, 1, 1, 1), kernel), np.full(1, bias)])
        for variable, value in zip(model.optimizer.averages, (7.0, 8.0), strict=True):
            variable.assign(np.full(variable.shape, value))
        logs = {"loss": 0.1}
        keep.on_epoch_end(epoch, logs)
        assert logs == {"loss": 0.1} and keep.sound and not keep.stopped
        assert keep.best["epoch"] == (2 if epoch == 2 else -1)
    (path,) = tmp_path.glob("*.h5")
    assert keep.best == {"epoch": 2, "miou": None, "weights": weights, "file": path.name}
    fresh = pointwise()
    fresh.load_weights(path)
    expected = {"last": PERFECT, "ema": (7.0, 8.0), "swa": tuple(np.mean(ends[1:], axis=0))}[weights]
    assert np.allclose([float(np.squeeze(value)) for value in fresh.get_weights()], expected)
    assert np.allclose([float(np.squeeze(value)) for value in model.get_weights()], PERFECT)  # its own again


# --- A refit ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def refit(tiny_run, tmp_path_factory) -> Run:
    """Train a run with two folds and a refit of three epochs with the real command."""
    run = Run.open(tiny_run.copy(tmp_path_factory.mktemp("refit")) / tiny_run.name)
    assert main(command(run, "--epochs", 3)) == 0
    return Run.open(run.path)


def test_a_refit_is_a_finished_fold_without_scores(tiny_run, refit):
    folder = refit.fold_path("full")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["fold"], metrics["epochs"], metrics["best_epoch"], metrics["tiles"]) == ("full", 3, 2, 0)
    assert metrics["scores"] is None and metrics["counts"] is None and not (folder / "oof.npz").exists()
    assert (
        refit.fold("full").finished and refit.finished_folds(["full"]) == ["full"] and refit.finished_folds() == [0, 1]
    )
    assert json.loads((folder / "full.json").read_text())["folds"] == [0, 1]
    assert [row["epoch"] for row in read_history(folder / "history.csv")] == [0, 1, 2]
    assert "val_loss" not in read_history(folder / "history.csv")[0]
    assert "on 20 tiles, none held out" in (folder / "log.txt").read_text()
    # The folds' configuration is what it was; that of the refit has its own epochs.
    assert (refit.path / "config.yaml").read_bytes() == (tiny_run.path / "config.yaml").read_bytes()
    assert read_config(folder / "config.yaml").training.epochs == 3
    # Statistics of all tiles of the pool.
    pool = pool_tiles(refit)
    found = json.loads((folder / "normalization.json").read_text())
    assert np.allclose(found["mean"], pool.images.mean(axis=(0, 1, 2), dtype=np.float64), rtol=1e-5)
    assert np.allclose(found["std"], pool.images.std(axis=(0, 1, 2), dtype=np.float64), rtol=1e-5)


def test_every_tile_of_the_pool_was_seen_by_it(refit):
    tiles = pool_tiles(refit).subset([0, 5])
    assert predict_ensemble([refit], ["full"], PredictionInputs.alone(tiles), ["identity"]).leaked == [
        str(ref.image) for ref in tiles.refs
    ]
    assert not predict_ensemble([refit], [0, 1], PredictionInputs.alone(tiles), ["identity"]).leaked


def test_what_is_finished_is_not_trained_again(refit, capsys):
    assert main(command(refit)) == 2
    assert "Fold full of run tiny is finished" in capsys.readouterr().err


def test_nothing_is_measured_or_decided_on_it(refit, tiny_run, capsys):
    search = [
        "tune",
        "training",
        "--config",
        tiny_run.recipe,
        "--data",
        tiny_run.data,
        "--trials",
        1,
        "--run",
        "search",
    ]
    for arguments in (["tune", "--run", "tiny"], ["evaluate", "tiny"], map(str, search)):
        assert main([*arguments, "--runs", str(refit.path.parent), "--folds", "full"]) == 2
        assert "Fold full was trained on all labelled tiles" in capsys.readouterr().err
    assert not (refit.path.parent / "search").exists()
    assert (
        main(["predict", "tiny", "--runs", str(refit.path.parent), "--folds", "full,0", "--images", "x", "--out", "y"])
        == 2
    )
    assert "such as 0,1, or full" in capsys.readouterr().err


def test_a_submission_with_it_follows_the_decision_of_the_folds_and_says_so(refit, tiny_run, tmp_path):
    path = refit.path / "decision.json"
    tune.tune(["tiny"], refit.path.parent, None, None, 10, ["identity", "flips"], "published")
    decision = json.loads(path.read_text())
    request = SubmitRequest(["tiny"], tiny_run.data / "test", tmp_path / "a.zip", refit.path.parent, ["full"])
    manifest = submit(request)
    assert manifest["folds"] == ["full"] and list(manifest["runs"]["tiny"]["folds"]) == ["full"]
    assert manifest["expected"]["measured_on"] == "tiles held out by folds 0, 1"
    assert manifest["expected"]["miou"] == decision["expected"]["scores"]["miou"]
    assert manifest["threshold"] == decision["threshold"]
    found = predict(PredictRequest(["tiny"], tiny_run.data / "test", tmp_path / "out", refit.path.parent, ["full"]))
    assert found["foreground_ratio"] == manifest["foreground_ratio"]
    # Of folds that were trained anew since, the decision says nothing, and nothing of their refit either.
    change(path, members={"tiny": {**decision["members"]["tiny"], "0": "00" * 32}}, sha256=None)
    with pytest.raises(InputError, match="before fold 0"):
        submit(replace(request, out=tmp_path / "b.zip"))
    path.unlink()


@pytest.mark.parametrize("moment", [r"fold_full.*00002_000000\.npz", pytest.param(r"metrics", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_refit_killed_and_resumed_ends_as_an_undisturbed_one(run, refit, moment):
    arguments = ["os.rename", moment, "1", *command(run, "--epochs", 3)]
    done = subprocess.run([sys.executable, "-c", KILLER + COMMAND, *arguments], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert run.fold("full").status == "unfinished"
    for fold in (0, 1):  # a plan that was made is kept to, whatever becomes of the folds
        (run.fold_path(fold) / "metrics.json").unlink()
    subprocess.run(
        [sys.executable, "-m", "competition.cli", *command(run, "--resume")], check=True, capture_output=True
    )
    one, other = run.fold_path("full"), refit.fold_path("full")
    assert (one / "best.weights.h5").read_bytes() == (other / "best.weights.h5").read_bytes()
    assert [row["loss"] for row in read_history(one / "history.csv")] == [
        row["loss"] for row in read_history(other / "history.csv")
    ]
