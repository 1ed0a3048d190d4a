"""Training a fold, from the tiles to the finished directory; interruptions, divergence, and full memory or disk."""

import csv
import hashlib
import io
import json
import math
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tifffile
import yaml
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score, precision_score, recall_score
from tensorflow.python.framework.config import disable_op_determinism

from competition.commands.train import TrainRequest
from competition.commands.train import train as train_command
from marsls_keras.errors import InputError, RunError
from marsls_keras.models import build_model, registry
from marsls_keras.models.networks import Network
from marsls_keras.runs.run import Run

FILES = {
    *("config.yaml", "environment.json", "normalization.json", "history.csv", "log.txt", "tensorboard"),
    *("best.weights.h5", "oof.npz", "curves.png", "metrics.json", "state"),
}


def train(tiny_run, runs: Path, *settings: str, fold: str = "0", data: Path | None = None, **options):
    """Train as the command does, with the recipe of the tiny run."""
    return train_command(TrainRequest(str(tiny_run.recipe), settings, data or tiny_run.data, fold, runs, **options))


@pytest.fixture
def deterministic():
    """Reset the process-wide settings of the recipe afterwards."""
    yield
    disable_op_determinism()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def history(folder: Path) -> list[dict[str, float]]:
    with open(folder / "history.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def tiles(data: Path, ids: list[str], kind: str) -> np.ndarray:
    return np.stack(
        [tifffile.imread(data / split / kind / f"{stem}.tif") for split, stem in (name.split("/") for name in ids)]
    )


def variables(path: Path) -> list[np.ndarray]:
    model = build_model("unet", bands=7, base_filters=4, depth=1)
    model.load_weights(path)
    return model.get_weights()


def held_out(path: Path, fold: int) -> tuple[list[str], list[str]]:
    """Return the ids that a fold holds out, and those that it trains on."""
    pool = json.loads((path / "splits.json").read_text())["tiles"]
    return [t["id"] for t in pool if t["fold"] == fold], [t["id"] for t in pool if t["fold"] != fold]


# --- A finished fold --------------------------------------------------------------------------------------------------


def test_the_run_directory_holds_all_that_it_should_and_the_last_state(tiny_run):
    names = {path.name for path in tiny_run.path.iterdir() if not path.name.startswith(".")}
    assert names == {"config.yaml", "fingerprint.json", "splits.json", "fold_0", "fold_1"}
    for fold in (0, 1):
        folder = tiny_run.path / f"fold_{fold}"
        assert {path.name for path in folder.iterdir()} == FILES
        assert [path.name for path in (folder / "state").iterdir()] == ["00002_000000.npz"]
        assert (folder / "config.yaml").read_bytes() == (tiny_run.path / "config.yaml").read_bytes()
        environment = json.loads((folder / "environment.json").read_text())
        assert (environment["backend"], environment["precision"], environment["deterministic"]) == (
            "tensorflow",
            "float32",
            True,
        )
        assert (
            environment["packages"]["keras"] == keras.__version__
            and environment["packages"]["tensorflow"] == tf.__version__
        )
        with open(folder / "curves.png", "rb") as file:
            height, width, _ = tf.image.decode_png(file.read()).shape
        assert 400 < height < 2000 and 400 < width < 2000
        assert Run.open(tiny_run.path).fold(fold).finished
        assert metrics(folder) == tiny_run.results[fold]


def test_tensorboard_has_the_losses_of_the_history(tiny_run):
    folder = tiny_run.path / "fold_0"
    found = {}
    for record in tf.data.TFRecordDataset([str(path) for path in (folder / "tensorboard" / "train").iterdir()]):
        event = tf.compat.v1.Event.FromString(record.numpy())
        found |= {(value.tag, event.step): float(tf.make_ndarray(value.tensor)) for value in event.summary.value}
    for epoch, row in enumerate(history(folder)):
        assert found["epoch_loss", epoch] == pytest.approx(row["loss"], rel=1e-6)


@pytest.mark.parametrize("fold", [0, 1])
def test_the_scores_are_those_of_the_predictions_that_were_kept(tiny_run, fold):
    folder = tiny_run.path / f"fold_{fold}"
    ids, _ = held_out(tiny_run.path, fold)
    with np.load(folder / "oof.npz") as arrays:
        assert arrays["ids"].tolist() == ids and str(arrays["weights"]) == metrics(folder)["weights_sha256"]
        predicted = (arrays["view_identity"].astype(np.float64) >= 0.5).ravel()
        assert [name for name in arrays.files if name.startswith("view_")] == ["view_identity"]
    truth = tiles(tiny_run.data, ids, "masks").ravel() == 1
    fg, bg = (jaccard_score(truth, predicted, pos_label=label, zero_division=1) for label in (1, 0))
    found = metrics(folder)
    assert found["scores"] == pytest.approx(
        {
            "miou": (fg + bg) / 2,
            "iou_fg": fg,
            "iou_bg": bg,
            "f1": f1_score(truth, predicted),
            "precision": precision_score(truth, predicted, zero_division=0),
            "recall": recall_score(truth, predicted),
        },
        abs=1e-12,
    )
    (tn, fp), (fn, tp) = confusion_matrix(truth, predicted).tolist()
    assert found["counts"] == {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
    assert (found["fold"], found["tiles"], found["epochs"]) == (fold, len(ids), 2)


@pytest.mark.parametrize("fold", [0, 1])
def test_the_best_epoch_is_that_of_the_history(tiny_run, fold):
    folder = tiny_run.path / f"fold_{fold}"
    rows, found = history(folder), metrics(folder)
    scores = [row["val_miou"] for row in rows]
    best = int(np.argmax(scores))
    assert len(rows) == 2 and found["best_epoch"] == best
    assert found["scores"]["miou"] == pytest.approx(scores[best], abs=1e-12)
    assert {name: found["scores"][name] for name in found["scores"]} == pytest.approx(
        {name: rows[best][f"val_{name}"] for name in found["scores"]}, abs=1e-12
    )
    for row in rows:
        assert row["val_miou"] == max(row["miou_last"], row["miou_ema"]) and row["ema"] == (
            row["miou_ema"] > row["miou_last"]
        )
    assert found["best_weights"] == ("ema" if rows[best]["ema"] else "last")
    assert found["seconds"] == pytest.approx(sum(row["seconds"] for row in rows), abs=0.051)
    assert found["seconds_with_setup"] >= found["seconds"] - 0.1


@pytest.mark.parametrize("fold", [0, 1])
def test_the_weights_are_those_that_were_recorded(tiny_run, fold):
    folder = tiny_run.path / f"fold_{fold}"
    assert metrics(folder)["weights_sha256"] == hashlib.sha256((folder / "best.weights.h5").read_bytes()).hexdigest()


@pytest.mark.parametrize("fold", [0, 1])
def test_the_normalisation_knows_the_training_tiles_of_the_fold_alone(tiny_run, fold):
    own, training = held_out(tiny_run.path, fold)
    assert len(own) + len(training) == 20 and not set(own) & set(training)
    pixels = tiles(tiny_run.data, training, "images").astype(np.float64)
    found = json.loads((tiny_run.path / f"fold_{fold}" / "normalization.json").read_text())
    assert (
        found["bands"] == ["red", "green", "blue", "dem", "slope", "thermal", "gray"] and found["percentiles"] is None
    )
    assert found["mean"] == pytest.approx(pixels.mean((0, 1, 2)), rel=1e-6)
    assert found["std"] == pytest.approx(pixels.std((0, 1, 2)), rel=1e-5)
    everything = tiles(tiny_run.data, own + training, "images").astype(np.float64)
    assert np.abs(np.array(found["mean"]) / everything.mean((0, 1, 2)) - 1).max() > 1e-3


def test_a_run_that_is_complete_is_left_alone(tiny_run, tmp_path, caplog):
    runs = tiny_run.copy(tmp_path)
    before = content(runs)
    _, results = train(tiny_run, runs, fold="all")
    assert results == [] and caplog.messages == [f"Fold {fold} of run tiny is finished already." for fold in (0, 1)]
    assert content(runs) == before


# --- Learning ---------------------------------------------------------------------------------------------------------


def test_training_learns_an_easy_task_with_the_official_split_and_no_average(tiny_run, data_root, tmp_path):
    """The one fold of cv official trains on train, is scored on val, and gets most of it right."""
    data = data_root(train=12, val=4, test=0)
    settings = [
        "data.cv=official",
        "training.epochs=10",
        "training.ema_decay=null",
        "training.deterministic=false",
        "model.options.base_filters=3",
    ]
    run, (result,) = train(
        tiny_run, tmp_path, *settings, "training.learning_rate=0.02", "training.seed=0", fold="all", data=data
    )
    assert run.splits.folds == 1
    own, training = held_out(run.path, 0)
    stems = {
        split: sorted(f"{split}/{path.stem}" for path in (data / split / "images").iterdir())
        for split in ("train", "val")
    }
    assert sorted(own) == stems["val"] and sorted(training) == stems["train"]
    found = json.loads((run.path / "fold_0" / "normalization.json").read_text())
    assert found["mean"] == pytest.approx(
        tiles(data, stems["train"], "images").mean((0, 1, 2), dtype=np.float64), rel=1e-6
    )

    share = tiles(data, stems["val"], "masks").mean()
    # All foreground or all background: one class right by its share, the other wholly missed.
    trivial = max(share, 1 - share) / 2
    rows = history(run.path / "fold_0")
    assert result["scores"]["miou"] > trivial + 0.3
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    assert result["best_weights"] == "last" and not {"ema", "miou_ema"} & set(rows[0])
    assert result["epochs"] == len(rows) == 10
    with pytest.raises(InputError, match="There is no fold 1: with cv official the folds are 0 to 0"):
        train(tiny_run, tmp_path, *settings, fold="1", data=data)


# --- Folds that have begun --------------------------------------------------------------------------------------------


def refused(tiny_run, runs: Path, *settings: str, **options) -> str:
    """Return the error message of a training that is refused, and check that no file has changed."""
    before = content(runs)
    with pytest.raises(InputError) as error:
        train(tiny_run, runs, *settings, **options)
    assert content(runs) == before
    return str(error.value)


@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_fold_is_not_trained_again(tiny_run, tmp_path, resume):
    ways = "longer with --resume --epochs 4 or anew with --overwrite, or another run with --run."
    message = f"Fold 0 of run tiny is finished. Train it {ways}"
    assert refused(tiny_run, tiny_run.copy(tmp_path), resume=resume) == message


@pytest.mark.parametrize("fold", ["1", "all"])
def test_an_unfinished_fold_is_not_begun_anew_unasked(tiny_run, tmp_path, fold):
    runs = tiny_run.copy(tmp_path)
    (runs / "tiny" / "fold_1" / "metrics.json").unlink()
    assert refused(tiny_run, runs, fold=fold) == (
        f"Run tiny: fold 1 is unfinished: marsls train --run tiny --runs {runs} --fold 1 --resume\nOr begin the fold "
        "anew with --overwrite."
    )


def test_a_fold_of_another_configuration_is_refused(tiny_run, tmp_path):
    runs = tiny_run.copy(tmp_path)
    message = refused(tiny_run, runs, "training.seed=3", resume=True)
    assert "tiny has another configuration:\n  - training.seed: 4 → 3\nChoose another name with --run." in message
    path = runs / "tiny" / "fold_0" / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"loss": {"bce": 1.0}}))
    (path.parent / "metrics.json").unlink()
    assert refused(tiny_run, runs, resume=True) == (
        "Run tiny: fold 0 is from another configuration (loss.bce: 0.5 → 1.0; loss.dice: 0.5 → absent)\n"
        "Or begin the fold anew with --overwrite."
    )


def test_a_finished_fold_with_changed_weights_is_never_resumed_over(tiny_run, tmp_path):
    """Not even in a folder whose name could be taken for the reason."""
    runs = tiny_run.copy(tmp_path / "unfinished")
    with open(runs / "tiny" / "fold_0" / "best.weights.h5", "ab") as file:
        file.write(b"x")
    assert refused(tiny_run, runs, resume=True).startswith(
        "Run tiny: fold 0 has other weights than it was finished with ("
    )


def test_data_that_do_not_fit_are_refused_before_anything_is_written(tiny_run, data_root, tmp_path):
    runs = tmp_path / "runs"
    with pytest.raises(
        InputError, match="unet needs height and width divisible by 2; the tiles or windows are 33 x 33"
    ):
        train(tiny_run, runs, data=data_root(size=33))
    assert not list(runs.rglob("fold_*/*"))


def test_overwrite_keeps_the_earlier_fold_and_gives_the_same_result_again(tiny_run, tmp_path, deterministic):
    runs = tiny_run.copy(tmp_path)
    folder, aside = runs / "tiny" / "fold_1", runs / "tiny" / "fold_1.old"
    before, other = content(folder), content(runs / "tiny" / "fold_0")
    aside.mkdir()
    (aside / "metrics.json").write_text("one that was put aside earlier")
    _, (result,) = train(tiny_run, runs, fold="1", overwrite=True)
    assert content(aside) == before and content(runs / "tiny" / "fold_0") == other
    assert {path.name for path in folder.iterdir()} == FILES and metrics(folder) == result
    assert Run.open(runs / "tiny").finished_folds() == [0, 1]
    same(folder, tiny_run.path / "fold_1")


# --- Killed and resumed -----------------------------------------------------------------------------------------------


def same(folder: Path, other: Path) -> None:
    """Compare two finished folds, bit for bit except for times."""
    assert all(
        np.array_equal(a, b) for a, b in zip(*(variables(f / "best.weights.h5") for f in (folder, other)), strict=True)
    )
    timeless = [
        [{k: v for k, v in row.items() if k not in ("seconds", "tiles_per_second")} for row in history(f)]
        for f in (folder, other)
    ]
    assert timeless[0] == timeless[1]
    with np.load(folder / "oof.npz") as a, np.load(other / "oof.npz") as b:
        assert a.files == b.files and all(np.array_equal(a[name], b[name]) for name in a.files if name != "weights")
    ours, theirs = (
        {k: metrics(f)[k] for k in ("best_epoch", "best_weights", "scores", "counts", "epochs")}
        for f in (folder, other)
    )
    assert ours == theirs


@pytest.fixture(scope="module")
def killed(tiny_run, tmp_path_factory) -> dict[int, Path]:
    """Return folders of runs with fold 0 killed after the first or the last epoch; fold 1 is finished."""

    def kill(epoch: int) -> Path:
        runs = tiny_run.copy(tmp_path_factory.mktemp(f"killed_{epoch}"))
        shutil.rmtree(runs / "tiny" / "fold_0")
        command = [
            sys.executable,
            "-m",
            "competition.cli",
            "train",
            "--config",
            tiny_run.recipe,
            "--data",
            tiny_run.data,
            "--runs",
            runs,
        ]
        process = subprocess.Popen(
            [*map(str, command), "--fold", "0"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        for line in process.stderr:
            if f"epoch   {epoch}/2" in line:
                process.send_signal(signal.SIGKILL)
                break
        process.stderr.close()
        assert process.wait() == -signal.SIGKILL
        return runs

    with ThreadPoolExecutor(2) as pool:
        return dict(zip((1, 2), pool.map(kill, (1, 2)), strict=True))


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_killed_training_resumes_to_the_result_of_an_uninterrupted_one(
    tiny_run, killed, tmp_path, deterministic, epoch
):
    runs = tmp_path / "runs"
    shutil.copytree(killed[epoch], runs)
    folder = runs / "tiny" / "fold_0"
    assert (folder / "state" / f"{epoch:05d}_000000.npz").exists() and not (folder / "metrics.json").exists()
    with pytest.raises(
        InputError,
        match="Run tiny is not complete:\n  - fold 0 is unfinished: .*\nTo use only what is there, say so: --folds 1",
    ):
        Run.open(runs / "tiny").finished_folds()
    (folder / "state" / ".1234.00002_000000.npz").write_bytes(b"half written when the process died")
    _, (result,) = train(tiny_run, runs, resume=True)
    assert {path.name for path in folder.iterdir()} == FILES and metrics(folder) == result
    same(folder, tiny_run.path / "fold_0")
    log = (folder / "log.txt").read_text()
    assert log.count("Resuming after epoch") == 1 and f"Resuming after epoch {epoch}." in log
    # The line after which it was killed may have come too late for the log; the others are there once.
    shown = [int(re.search(r"epoch +(\d)/2", line)[1]) for line in log.splitlines() if "val loss" in line]
    assert shown in ([1, 2], [2]) if epoch == 1 else shown in ([1, 2], [1])


def test_resuming_what_has_not_begun_or_lost_its_state_begins(tiny_run, killed, tmp_path, deterministic):
    runs = tmp_path / "runs"
    shutil.copytree(killed[1], runs)
    folder = runs / "tiny" / "fold_0"
    for state in (folder / "state").iterdir():
        state.write_bytes(state.read_bytes()[:1000])
    train(tiny_run, runs, resume=True)
    same(folder, tiny_run.path / "fold_0")
    assert "Resuming" not in (folder / "log.txt").read_text()


# --- More epochs ------------------------------------------------------------------------------------------------------


def test_a_finished_fold_can_have_more_epochs(tiny_run, tmp_path, deterministic):
    runs = tiny_run.copy(tmp_path)
    folder, before = runs / "tiny" / "fold_0", history(tiny_run.path / "fold_0")
    assert "has another configuration:\n  - training.epochs: 2 → 4\n" in refused(tiny_run, runs, "training.epochs=4")
    assert "training.epochs: 2 → 1" in refused(tiny_run, runs, "training.epochs=1", resume=True)
    _, (result,) = train(tiny_run, runs, "training.epochs=4", resume=True)
    rows = history(folder)
    assert rows[:2] == before and len(rows) == 4 and result["epochs"] == 4
    assert result["scores"]["miou"] == pytest.approx(max(row["val_miou"] for row in rows), abs=1e-12)
    assert {path.name for path in folder.iterdir()} == FILES
    log = (folder / "log.txt").read_text()
    assert "Resuming after epoch 2. Training now ends after epoch 4 instead of 2: the learning-rate schedule" in log
    # The other fold, which had two epochs, stays a member of the run.
    run = Run.open(runs / "tiny")
    assert run.config.training.epochs == 4 and run.finished_folds() == [0, 1]
    assert "finished. Train it longer with --resume --epochs 8" in refused(
        tiny_run, runs, "training.epochs=4", resume=True
    )
    shutil.rmtree(runs / "tiny" / "fold_1" / "state")
    message = refused(tiny_run, runs, "training.epochs=4", resume=True, fold="1")
    assert message.startswith("Fold 1 of run tiny is finished, and its state is gone, so it cannot go on.")


# --- Divergence -------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.slow
def test_a_training_that_diverges_says_so_and_gives_the_terminal_back(tiny_run, tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    settings = ["training.learning_rate=1e30", "training.warmup_epochs=0", "training.deterministic=false"]
    with pytest.raises(
        RunError, match=r"^Training of fold 0 of run tiny diverged: NaN or infinite .* Lower training\.learning_rate"
    ) as error:
        train(tiny_run, tmp_path, *settings)
    folder = tmp_path / "tiny" / "fold_0"
    assert not list(folder.glob("*.weights.h5")) and "kept" not in str(error.value)  # it was in the first epoch
    assert error.value.exit_code == 1
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h") == 4
    log = (folder / "log.txt").read_text()
    assert [re.search(r"learning rate × (\S+)\.$", line)[1] for line in log.splitlines()[1:]] == [
        "0.5",
        "0.25",
        "0.125",
    ]
    # The tiles that are named were to be trained on, and are as many as a batch has.
    named = re.search(r"The tiles of that step: (.*)\. Going back to the beginning", log)[1].split(", ")
    assert len(named) == 4 and set(named) <= set(held_out(tmp_path / "tiny", 0)[1])
    assert Run.open(tmp_path / "tiny").fold(0).status == "unfinished"


@pytest.mark.slow
def test_the_best_weights_before_a_divergence_are_kept(tiny_run, tmp_path):
    """One step an epoch; from the second on it ends with weights that are far too large."""

    class Blow(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            for variable in self.model.trainable_variables if self.epoch else ():
                variable.assign(variable * 1e30)

    settings = [
        "training.epochs=4",
        "training.batch_size=100",
        "training.deterministic=false",
        "training.ema_decay=null",
    ]
    with pytest.raises(RunError) as error:
        train(tiny_run, tmp_path, *settings, callbacks=[Blow()])
    folder = tmp_path / "tiny" / "fold_0"
    (best,) = folder.glob("best-00000-*.weights.h5")
    assert f"The best weights so far are kept in {best}." in str(error.value)
    assert "Going back to the state after epoch 1 with the learning rate × 0.5." in (folder / "log.txt").read_text()
    assert len(history(folder)) == 2 and not math.isfinite(history(folder)[1]["val_loss"])
    kernels = [w for w in variables(best) if w.ndim == 4]
    assert all(np.isfinite(kernel).all() and 0 < np.abs(kernel).max() < 3 for kernel in kernels)
    assert [path.name for path in (folder / "state").iterdir()] == ["00001_000000.npz"]
    assert {path.name for path in folder.iterdir()} == FILES - {
        "oof.npz",
        "curves.png",
        "metrics.json",
        "best.weights.h5",
    } | {best.name}


@pytest.fixture
def network():
    """Register networks of a test, and remove them afterwards."""
    before = dict(registry._ENTRIES)
    yield registry.register
    registry._ENTRIES.clear()
    registry._ENTRIES.update(before)


class Brittle(keras.layers.Layer):
    """Layer with one weight that training always increases; from `limit` on its output is NaN."""

    limit = 0.37

    def build(self, _):
        self.weight = self.add_weight(shape=(), initializer="zeros", name="bias")

    def call(self, x):
        held = keras.ops.where(self.weight < self.limit, self.weight, float("nan"))
        return keras.ops.where(x > -1e9, held, 0.0)[..., :1]  # the same logit everywhere


def test_a_halved_learning_rate_can_save_a_training(tiny_run, data_root, network, tmp_path, deterministic):
    """Adam moves the weight by the learning rate at each of an epoch's four steps.

    Seven steps of 0.06 are too many, which the eighth step shows; four of 0.06 and four of 0.03 are not.
    """

    @network("brittle", Network(stride=lambda **_: 1))
    def brittle(bands: int = 7) -> keras.Model:
        inputs = keras.Input((None, None, bands))
        return keras.Model(inputs, Brittle(dtype="float32")(inputs))

    data = data_root(train=8, val=2, test=0, size=16)
    for mask in data.rglob("masks/*.tif"):
        tifffile.imwrite(mask, np.ones((16, 16), np.uint8))
    settings = [
        "model={name: brittle}",
        "training.epochs=3",
        "training.schedule.name=constant",
        "training.warmup_epochs=0",
    ]
    settings += ["training.learning_rate=0.06", "training.weight_decay=0", "training.batch_size=2", "data.cv=official"]
    settings += ["training.ema_decay=null"]
    _, (result,) = train(tiny_run, tmp_path, *settings, "training.epochs=2", data=data)
    folder = tmp_path / "tiny" / "fold_0"
    rows = history(folder)
    assert len(rows) == result["epochs"] == 2 and [row["learning_rate"] for row in rows] == pytest.approx([0.06, 0.03])
    (trouble,) = result["trouble"]
    assert trouble.startswith("NaN or infinite loss or weights in epoch 2, step 4. The tiles of that step: train/")
    model = build_model("brittle")
    model.load_weights(folder / "best.weights.h5")
    assert 0.2 < float(model.trainable_variables[0].numpy()) < 0.37
    log = (folder / "log.txt").read_text()
    assert log.count("with the learning rate × 0.5.") == 1


# --- Memory -----------------------------------------------------------------------------------------------------------


class Hungry(keras.layers.Layer):
    """Layer that asks for 16 TiB of memory for every tile above the number that fits."""

    def __init__(self, fits: int):
        super().__init__(dtype="float32")
        self.fits = fits

    def call(self, x):
        excess = tf.maximum(tf.shape(x)[0] - self.fits, 0)
        asked = tf.raw_ops.Empty(shape=tf.stack([excess, 2**21, 2**21]), dtype=tf.float32, init=False)
        return x + 0 * tf.reduce_sum(asked[:, 0, 0])


def hungry(network, fits: int) -> None:
    @network("hungry", Network(stride=lambda **_: 1))
    def build(bands: int = 7) -> keras.Model:
        inputs = keras.Input((None, None, bands))
        return keras.Model(inputs, keras.layers.Conv2D(1, 1, dtype="float32")(Hungry(fits)(inputs)))


# TensorFlow waits ten seconds for memory before it gives up.
@pytest.mark.slow
@pytest.mark.parametrize("batch,fits,expected", [(4, 2, (2, 2)), (8, 1, (1, 8)), (16, 2, (2, 8))])
def test_a_batch_that_does_not_fit_is_halved_and_accumulated(tiny_run, network, tmp_path, batch, fits, expected):
    hungry(network, fits)
    settings = [
        "model={name: hungry}",
        f"training.batch_size={batch}",
        "training.deterministic=false",
        f"inference.batch_size={fits}",
    ]
    _, (result,) = train(tiny_run, tmp_path, *settings)
    assert (result["batch_size"], result["accumulate"]) == expected
    assert result["trouble"][0] == f"Memory ran out with {batch} tiles a step: {batch // 2} now, 2 steps an update."
    log = (tmp_path / "tiny" / "fold_0" / "log.txt").read_text()
    assert (
        all(line in log for line in result["trouble"])
        and len(result["trouble"]) == (batch // expected[0]).bit_length() - 1
    )


@pytest.mark.slow
@pytest.mark.parametrize("batch,fits", [(3, 2), (16, 1), (1, 0)])
def test_a_batch_that_cannot_be_halved_often_enough_is_an_error(tiny_run, network, tmp_path, batch, fits):
    hungry(network, fits)
    settings = ["model={name: hungry}", f"training.batch_size={batch}", "training.deterministic=false"]
    with pytest.raises(
        RunError, match=r"Memory ran out with \d tiles a step. Lower training.batch_size .*OOM when allocating"
    ):
        train(tiny_run, tmp_path, *settings)


# --- Full disk --------------------------------------------------------------------------------------------------------

# Files may not grow beyond a limit: a write fails in the middle, as it does on a full disk.
LIMITED = """
import json, resource, sys
from competition.cli import main
for limit, arguments in json.loads(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    code = main(arguments)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(f"exit {code}", file=sys.stderr, flush=True)
"""


@dataclass
class Full:
    """A training with a full disk: its folder of runs, the files before it, and its output."""

    runs: Path
    before: dict[str, bytes]
    said: str = ""

    def check(self, file: str, status: str = "unfinished") -> set[str]:
        """Check that it ended with one message that names the file, and return the changed files but TensorBoard's."""
        *progress, message, code = self.said.splitlines()
        folder = self.runs / "tiny" / "fold_0"
        assert code == "exit 1" and re.match(
            rf"Error: Could not write {re.escape(str(folder))}/{file}: File too large\..* [Ff]ree", message
        )
        # Stages appear on a slow machine only; the last two are messages of TensorFlow.
        known = r"Training unet|Resuming after|tiny fold 0 · epoch|\w+ [\w ,]*…"
        known += r"|WARNING: All log messages before absl|[IW]\d{4} \d"
        assert all(re.match(known, line) for line in progress), progress
        assert Run.open(self.runs / "tiny").fold(0).status == status
        found = content(self.runs)
        hidden = {Path(path).name for path in found if Path(path).name.startswith(".")}
        superseded = ("best-", "00001_000000.npz") if status == "finished" else ("best-",)
        assert {path for path in self.before if not any(part in path for part in superseded)} <= set(
            found
        ) and hidden == {
            ".fold_0.lock",
            ".fold_1.lock",
        }
        changed = {path for path in found if found[path] != self.before.get(path) and "tensorboard" not in path}
        assert all(path.startswith("tiny/fold_0/") for path in changed)  # neither fold 1 nor the run itself
        return {path.removeprefix("tiny/fold_0/") for path in changed}


@pytest.fixture(scope="module")
def full_disk(tiny_run, killed, tmp_path_factory) -> dict[str, Full]:
    """Train fold 0 in one process under limits of file size, each of which fails at another file.

    The last epoch is finished except for the weights.
    """
    limits = {"oof.npz": 10_000, "curves.png": 40_000, "log.txt": 40_000, "best.weights.h5": 50_000}
    calls, cases = [], {}
    for name, limit in limits.items():
        runs = tmp_path_factory.mktemp("full") / "runs"
        shutil.copytree(killed[2], runs)
        folder = runs / "tiny" / "fold_0"
        if name == "log.txt":
            with open(folder / name, "a") as file:
                file.write("x" * 45_000 + "\n")
        if name == "best.weights.h5":
            shutil.rmtree(folder)
        cases[name] = Full(runs, content(runs))
        calls.append(
            (
                limit,
                [
                    "train",
                    "--config",
                    tiny_run.recipe,
                    "--data",
                    tiny_run.data,
                    "--runs",
                    runs,
                    "--fold",
                    "0",
                    "--resume",
                ],
            )
        )
    command = [sys.executable, "-c", LIMITED, json.dumps(calls, default=str)]
    said = subprocess.run(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True).stderr
    for case, text in zip(
        cases.values(), re.findall(r".*?^exit \d+\n|.+\Z", said, flags=re.MULTILINE | re.DOTALL), strict=False
    ):
        case.said = text
    return cases


@pytest.mark.parametrize("name,changed", [("oof.npz", {"best.weights.h5"}), ("log.txt", set())])
def test_a_disk_that_is_full_at_the_end_of_training(tiny_run, full_disk, name, changed):
    """What could not be written leaves no trace."""
    assert full_disk[name].check(name) <= {"log.txt", "environment.json", *changed}


def test_a_disk_that_is_full_where_the_weights_go(full_disk):
    assert full_disk["best.weights.h5"].check(r"best-00000-\w{8}\.weights\.h5") == {
        "config.yaml",
        "environment.json",
        "normalization.json",
        "log.txt",
    }


def test_once_there_is_space_the_fold_is_finished(tiny_run, full_disk, deterministic):
    runs = full_disk["oof.npz"].runs
    train(tiny_run, runs, resume=True)
    same(runs / "tiny" / "fold_0", tiny_run.path / "fold_0")
    assert {path.name for path in (runs / "tiny" / "fold_0").iterdir()} == FILES


def test_a_disk_that_is_full_where_the_curves_go_costs_nothing_but_them(tiny_run, full_disk):
    case = full_disk["curves.png"]
    changed = {"best.weights.h5", "oof.npz", "metrics.json"}
    assert changed <= case.check("curves.png", "finished") <= {"log.txt", "environment.json", *changed}
    assert train(tiny_run, case.runs, fold="all")[1] == []  # nothing is trained
    assert (case.runs / "tiny" / "fold_0" / "curves.png").stat().st_size > 1000
    assert {path.name for path in (case.runs / "tiny" / "fold_0").iterdir()} == FILES
