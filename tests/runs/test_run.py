"""The run directory, on runs written by hand: status of folds, and error messages."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml
from helpers.records import FINGERPRINT, metrics

from marsls_keras.config import Config
from marsls_keras.data.splits import Splits
from marsls_keras.errors import InputError
from marsls_keras.runs.opened import open_runs
from marsls_keras.runs.run import Run, read_history

SPLITS = Splits(
    "blocks",
    5,
    tuple({"id": f"train/t{i}", "sha256": f"{i:064x}", "block": f"base/0/{i}", "fold": i % 5} for i in range(10)),
)
CONFIG = Config()


def changed(**training) -> Config:
    return Config(training=training)


def finish(run: Run, fold: int, config: Config | None = None, weights: bytes = b"weights") -> Path:
    """Write the files of a finished fold."""
    folder = run.fold_path(fold)
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump((config or run.config).model_dump(mode="json")))
    (folder / "best.weights.h5").write_bytes(weights)
    (folder / "metrics.json").write_text(json.dumps(metrics(hashlib.sha256(weights).hexdigest(), fold)))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.create(tmp_path / "runs" / "mine", CONFIG, SPLITS, FINGERPRINT)


def test_a_run_is_what_it_was_created_with(run):
    assert sorted(content(run.path)) == ["config.yaml", "fingerprint.json", "splits.json"]
    assert yaml.safe_load((run.path / "config.yaml").read_text()) == CONFIG.model_dump(mode="json")
    splits = json.loads((run.path / "splits.json").read_text())
    assert splits == {"cv": "blocks", "folds": 5, "tiles": list(SPLITS.tiles), "contents": []}
    opened = Run.open(run.path)
    assert opened == Run(run.path, CONFIG, SPLITS, FINGERPRINT) == run
    assert (opened.name, opened.data_root, opened.fold_path(3)) == ("mine", Path("/data/a"), run.path / "fold_3")


def test_the_same_run_is_gone_on_with_wherever_its_data_are(run):
    before = content(run.path)
    again = Run.create(run.path, CONFIG, SPLITS, {**FINGERPRINT, "data_root": "/moved"})
    assert again == run and content(run.path) == before


def test_a_run_that_was_torn_while_it_began_is_begun_anew(run):
    (run.path / "splits.json").unlink()
    (run.path / "fingerprint.json").unlink()
    assert Run.create(run.path, changed(epochs=7), SPLITS, FINGERPRINT).config.training.epochs == 7
    assert Run.open(run.path).config == changed(epochs=7)


def test_another_configuration_is_refused_and_what_differs_is_named(run):
    before = content(run.path)
    other = Config(training={"epochs": 30, "ema_decay": None}, loss={"bce": 1.0})
    with pytest.raises(InputError) as error:
        Run.create(run.path, other, SPLITS, FINGERPRINT)
    lines = str(error.value).splitlines()
    assert lines[0] == f"Run {run.path} has another configuration:" and lines[-1] == "Choose another name with --run."
    assert [line.removeprefix("  - ") for line in lines[1:-1]] == [
        "loss.bce: 0.5 → 1.0",
        "loss.dice: 0.5 → absent",
        "training.ema_decay: 0.99 → None",
        "training.epochs: 60 → 30",
    ]
    assert content(run.path) == before


@pytest.mark.parametrize(
    "other,named",
    [
        ({}, "the pixels or masks of some tiles"),
        ({"data_root": "/data/b"}, "data_root: /data/a → /data/b"),
        (
            {"tiles": {"train": 9}, "release": "challenge"},
            "release: mmls_v2 → challenge\n  - tiles: {'train': 10} → {'train': 9}",
        ),
        ({"size": [64, 64]}, "size: [32, 32] → [64, 64]"),
    ],
)
def test_other_data_are_refused_and_what_differs_is_named(run, other, named):
    with pytest.raises(InputError) as error:
        Run.create(run.path, CONFIG, SPLITS, {**FINGERPRINT, "sha256": "cd" * 32, **other})
    assert str(error.value) == f"Run {run.path} was begun on other data:\n  - {named}\nChoose another name with --run."


def test_an_unknown_run_names_the_runs_that_are_there(run):
    Run.create(run.path.parent / "another", CONFIG, SPLITS, FINGERPRINT)
    (run.path.parent / "no_run").mkdir()
    with pytest.raises(InputError, match=r"There is no run 'yours' in .*runs\. There are: another, mine\.$"):
        Run.open(run.path.parent / "yours")
    with pytest.raises(
        InputError, match=r"There is no run 'yours' in .*elsewhere\. There is none yet: marsls train makes one\.$"
    ):
        Run.open(run.path.parent / "elsewhere" / "yours")


@pytest.mark.parametrize(
    "file,text",
    [
        ("splits.json", '{"cv": "blocks", '),
        ("splits.json", '{"cv": "blocks", "tiles": []}'),
        ("splits.json", "[]"),
        ("fingerprint.json", ""),
        ("config.yaml", "training: {epochs: 60"),
        ("config.yaml", "training: {epoch: 60}"),
    ],
)
def test_a_damaged_file_is_named(run, file, text):
    (run.path / file).write_text(text)
    with pytest.raises(InputError) as error:
        Run.open(run.path)
    assert str(run.path / file) in str(error.value)


def test_every_fold_that_cannot_be_used_is_named_with_the_reason(run):
    finish(run, 0)
    unfinished = finish(run, 2)
    (unfinished / "metrics.json").unlink()
    finish(run, 3, config=changed(seed=5))
    (finish(run, 4) / "best.weights.h5").write_bytes(b"weightS")
    reasons = [
        f"fold 1 is missing: marsls train --run mine --runs {run.path.parent} --fold 1",
        f"fold 2 is unfinished: marsls train --run mine --runs {run.path.parent} --fold 2 --resume",
        "fold 3 is from another configuration (training.seed: 0 → 5)",
        f"fold 4 has other weights than it was finished with ({run.path}/fold_4/best.weights.h5 is missing or changed)",
    ]
    found = [run.fold(fold) for fold in range(5)]
    assert [fold.trouble for fold in found] == [None, *reasons]
    assert [fold.status for fold in found] == ["finished", "missing", "unfinished", "other configuration", "changed"]
    assert [fold.finished for fold in found] == [True, False, False, False, False]
    assert found[0].metrics == run.metrics(0) and found[0].config == CONFIG and found[3].config == changed(seed=5)
    assert (found[1].config, found[2].config, found[2].metrics) == (None, CONFIG, None)
    listed = "".join(f"\n  - {reason}" for reason in reasons)
    with pytest.raises(InputError) as error:
        run.finished_folds()
    assert str(error.value) == f"Run mine is not complete:{listed}\nTo use only what is there, say so: --folds 0"
    with pytest.raises(InputError) as error:  # no hint, since the folds were chosen explicitly
        run.finished_folds([4, 0])
    assert str(error.value) == f"Run mine is not complete:\n  - {reasons[-1]}"
    assert run.finished_folds([0]) == [0]


def test_a_fold_without_weights_or_with_damaged_files_is_named_beside_the_others(run):
    (finish(run, 0) / "best.weights.h5").unlink()
    (finish(run, 1) / "metrics.json").write_text('{"weights_sha2')
    (finish(run, 2) / "config.yaml").write_text("training: {epochs: many}")
    (finish(run, 3) / "metrics.json").write_text("{}")
    with pytest.raises(InputError) as error:
        run.finished_folds()
    assert [run.fold(fold).status for fold in range(5)] == ["changed", "damaged", "damaged", "damaged", "missing"]
    found = str(error.value).split("\n  - fold ")[1:]
    starts = [
        f"0 has other weights than it was finished with ({run.path}/fold_0/best.weights.h5 ",
        f"1 is damaged: {run.path}/fold_1/metrics.json ",
        f"2 is damaged: Configuration {run.path}/fold_2/config.yaml:",
        f"3 is damaged: {run.path}/fold_3/metrics.json ",
        "4 is missing: ",
    ]
    assert [reason[: len(start)] for reason, start in zip(found, starts, strict=True)] == starts
    assert "--folds" not in found[-1]  # no fold is left to use


def test_the_folds_that_are_finished(run):
    for fold in range(5):
        finish(run, fold, weights=bytes([fold]))
    assert run.finished_folds() == [0, 1, 2, 3, 4] and run.finished_folds([3, 1, 3]) == [1, 3]
    assert run.digest([1, 4]) == {"1": hashlib.sha256(b"\1").hexdigest(), "4": hashlib.sha256(b"\4").hexdigest()}
    assert run.metrics(2) == metrics(hashlib.sha256(b"\2").hexdigest(), 2)
    for wrong in (5, -1):
        with pytest.raises(InputError, match=f"There is no fold {wrong}: with cv blocks the folds are 0 to 4"):
            run.finished_folds([0, wrong])


def test_a_run_of_version_01_that_kept_each_set_of_weights_opens(run):
    """Its config.yaml has a removed key, and its metrics.json an entry of that key; its best weights stay valid."""

    def old(path: Path, value: object) -> None:
        path.write_text(
            yaml.safe_dump(
                {**(made := CONFIG.model_dump(mode="json")), "training": {**made["training"], "keep_each": value}}
            )
        )

    folder = finish(run, 0)
    own = json.loads((folder / "metrics.json").read_text())
    judged = {key: own[key] for key in ("best_weights", "best_epoch", "weights_sha256", "scores", "counts")}
    (folder / "metrics.json").write_text(
        json.dumps({**own, "each": {"ema": judged, "last": {**judged, "best_weights": "last"}}})
    )
    (folder / "best.last.weights.h5").write_bytes(b"other")
    for value in (True, False, "whatever"):
        old(run.path / "config.yaml", value)
        old(folder / "config.yaml", value)
        opened = Run.open(run.path)
        assert opened == run and opened.finished_folds([0]) == [0]
        assert opened.weights_path(0) == folder / "best.weights.h5" and opened.metrics(0)["best_weights"] == "ema"
    assert Run.create(run.path, CONFIG, SPLITS, FINGERPRINT) == run


@pytest.mark.parametrize("name", ["mine@ema", "mine@", "@last"])
def test_one_set_of_weights_is_no_run(run, name):
    with pytest.raises(InputError, match=f"--run {name}: expected a plain name, without @. RUN@SET was removed"):
        open_runs([name], run.path.parent, None)


def test_the_command_for_a_fold_is_one_that_a_shell_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = Run.create(Path("runs/mine"), CONFIG, SPLITS, FINGERPRINT)
    assert mine.fold(1).trouble == "fold 1 is missing: marsls train --run mine --fold 1"
    odd = Run.create(Path("my runs/a b"), CONFIG, SPLITS, FINGERPRINT)
    assert odd.fold(2).trouble == "fold 2 is missing: marsls train --run 'a b' --runs 'my runs' --fold 2"


@pytest.mark.parametrize("content", [b"", b"epoch,loss\n0", b"epoch\nx", b"epoch\n0,1", b"\xff\xfe", b"\0\n\0"])
def test_a_damaged_history_is_named(tmp_path, content):
    (tmp_path / "history.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"history\.csv is damaged: "):
        read_history(tmp_path / "history.csv")
    assert read_history(tmp_path / "none.csv") == []
