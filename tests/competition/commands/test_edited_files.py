"""Edited or damaged files of a run: each is read with the same result, or refused with its name."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import marsls

from competition.commands import tune
from competition.commands.report import _gather
from competition.search.study_record import StudyRecord
from marsls_keras.data.normalization import NormalizationRecord, Normalizer
from marsls_keras.data.splits import FULL
from marsls_keras.errors import InputError
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.decision_files import read_decision
from marsls_keras.json_records import read_record
from marsls_keras.report.study_plots import study_plots
from marsls_keras.runs.records import EnvironmentRecord
from marsls_keras.runs.run import Run
from marsls_keras.training.refit import RefitPlan

STUDY = {
    **{"name": "s", "folds": [0], "importance": {"training.learning_rate": 0.7}},
    "keys": {"training.learning_rate": {"low": 0.001, "high": 0.1, "log": True}, "loss": {"choices": ["bce", "dice"]}},
    "trials": [
        {
            "number": i,
            "state": "complete",
            "miou": 0.5 + i / 10,
            "epochs": 2,
            "last_miou": 0.5,
            "seconds": 1.0,
            "reason": None,
        }
        | {"parameters": {"training.learning_rate": 0.01, "loss": "bce"}}
        for i in range(2)
    ],
}
FULL_PLAN = {
    **{"epochs": 3, "weights": "ema", "folds": [0, 1], "best_epochs": [1, 2], "best_weights": ["ema", "last"]},
    "pseudo": {
        **{
            "folder": "/images",
            "images_sha256": "ab" * 32,
            "tiles": 3,
            "left_out": 0,
            "confidence": 0.9,
            "confident": 0.8,
        },
        **{
            "landslide": 0.1,
            "folds": {"0": "ab" * 32},
            "decision": {"views": "d4", "weights": None, "averaging": "logit"},
        },
    },
}


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory) -> Path:
    """Return a copy of the run with every kind of JSON file, by commands except study and refit's plan."""
    runs = tiny_run.copy(tmp_path_factory.mktemp("edited"))
    tune.tune([tiny_run.name], runs, None, None, 20, ["flips"], "published")
    path = runs / tiny_run.name
    (path / "search").mkdir()
    (path / "search" / "study.json").write_text(json.dumps(STUDY))
    (path / "fold_full").mkdir()
    (path / "fold_full" / "full.json").write_text(json.dumps(FULL_PLAN))
    return path


def decided(path: Path):
    run = Run.open(path)
    decision = read_decision([run], [0, 1])
    return {
        key: value for key, value in decision.to_json().items() if key != "sha256"
    }  # without it, it is one of an earlier version


def gone_through(path: Path):
    """Read all that commands which only read runs need."""
    run = Run.open(path)
    return run.config, run.splits, run.fingerprint, run.finished_folds(), run.digest([0, 1]), run.metrics(1)


READERS = {
    "decision.json": decided,
    "splits.json": gone_through,
    "fingerprint.json": gone_through,
    "fold_1/metrics.json": gone_through,
    "fold_1/normalization.json": lambda path: (
        gone_through(path),
        Normalizer.from_json(read_record(path / "fold_1/normalization.json", NormalizationRecord)),
    ),
    "fold_1/environment.json": lambda path: read_record(path / "fold_1/environment.json", EnvironmentRecord),
    "fold_full/full.json": lambda path: RefitPlan.read(path / "fold_full/full.json"),
    "search/study.json": lambda path: [
        title for title, *_ in study_plots(read_record(path / "search/study.json", StudyRecord))
    ],
}
OTHER = (None, -1, 10**30, "text", "", True, [], {}, 0.5)
CONTENTS = [
    *(
        b"",
        b"[]",
        b"null",
        b"3",
        b'"text"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe",
        b"\0" * 9,
        b"{",
        b'{"a": NaN}',
        b'{"a": 1e999}',
    ),
    *(
        b'{"a": -Infinity}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": 1, "a": 2}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\u0000"}',
        b"\xef\xbb\xbf{}",
    ),
]


def places(value, most=3):
    """Yield the path of every key; of long lists, only the first elements."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:most]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (key,)
        yield from ((key, *rest) for rest in places(inner, most))


def edits(value):
    """Yield edits of a value, each as (description, edited value)."""
    for place in places(value):
        for other in ("delete", *OTHER):
            edited = json.loads(json.dumps(value))
            holder = edited
            for key in place[:-1]:
                holder = holder[key]
            if other == "delete":
                del holder[place[-1]]
            else:
                holder[place[-1]] = other
            yield f"{place}: {other!r}", edited
    if isinstance(value, dict):
        yield "a key of a newer version", {**value, "newer": 1}


def outcome(reader, path: Path, name: str, what: str, before):
    """Return whether the reader refused the file with its name; if not, check that it read the same as before."""
    try:
        after = reader(path)
    except InputError as error:
        assert name in str(error), (what, str(error))
        return True
    assert after == before, what
    return False


# What changes the result and may: paths that are looked up, and figures and words that are only shown.
SHOWN = {
    "fingerprint.json": lambda value: json.dumps({key: value[key] for key in ("sha256", "release")}),
    "fold_1/metrics.json": lambda value: json.dumps(
        {key: value[key] for key in ("weights_sha256", "scores", "counts", "fold")}
    ),
    "fold_1/environment.json": lambda value: "",
    "search/study.json": lambda value: "",
    "fold_full/full.json": lambda value: json.dumps({key: value[key] for key in ("folds", "best_weights")}),
}


@pytest.mark.parametrize("name", READERS)
def test_an_edited_file_is_read_as_before_or_refused(run, name):
    path, reader = run / name, READERS[name]
    original, refusals = path.read_bytes(), 0
    value = json.loads(original)
    before = reader(run)
    try:
        for what, edited in edits(value):
            path.write_text(json.dumps(edited))
            if name in SHOWN:
                try:
                    reader(run)
                except InputError as error:
                    assert name in str(error), (what, str(error))
                    refusals += 1
                else:
                    assert SHOWN[name](edited) == SHOWN[name](value), what
            else:
                refusals += outcome(reader, run, name, what, before)
        for content in CONTENTS:
            path.write_bytes(content)
            refusals += outcome(reader, run, name, repr(content[:20]), before)
            assert refusals  # each of them
    finally:
        path.write_bytes(original)
    assert refusals > 20 and reader(run) == before


def test_without_its_seal_a_decision_is_still_checked_key_by_key(run):
    """As earlier versions wrote it."""
    path = run / "decision.json"
    original = path.read_bytes()
    value = json.loads(original)
    del value["sha256"]
    try:
        for key in ("threshold", "views", "members", "folds", "runs"):
            path.write_text(json.dumps({name: inner for name, inner in value.items() if name != key}))
            with pytest.raises(
                InputError,
                match=rf"decision\.json is damaged.*\n  - {key}: the key is missing\nRun marsls tune again\.",
            ):
                Decision.read(path)
        wrong = {
            "threshold": (None, -1, 0, 1.5, "0.5", True),
            "views": ("d5", 1),
            "min_area": (-1, 2**40, 0.5),
            "weights": ({"other": 1.0}, {}),
        }
        for key, values in wrong.items():
            for other in values:
                path.write_text(json.dumps(value | {key: other}))
                with pytest.raises(InputError, match=key):
                    Decision.read(path)
        # The interval may be missing.
        path.write_text(json.dumps(value | {"expected": {**value["baseline"], "interval": None}}))
        assert Decision.read(path).expected.interval is None
        path.write_text(
            json.dumps({key: value[key] for key in ("runs", "folds", "members", "views", "threshold", "baseline")})
        )
        assert decided(run)["averaging"] == "probability"
        path.write_text(json.dumps(value | {"threshold": 0.123}))  # meant so
        assert decided(run)["threshold"] == 0.123
    finally:
        path.write_bytes(original)
    path.write_text(json.dumps(json.loads(original) | {"threshold": 0.123}))
    with pytest.raises(InputError, match=r"was edited or damaged since marsls tune wrote it.*remove its key sha256"):
        decided(run)
    path.write_bytes(original)


@pytest.mark.parametrize(("name", "folds"), [("splits.json", [0, 1]), ("fold_1/normalization.json", [1])])
def test_what_a_fold_was_trained_with_is_bound_to_it(run, tmp_path, name, folds):
    """A tile in another fold, or another mean, is possible as such, but the scores would be others."""
    copy = Path(shutil.copytree(run, tmp_path / "tiny"))
    value = json.loads((copy / name).read_text())
    if "tiles" in value:
        value["tiles"][0]["fold"] = 1 - value["tiles"][0]["fold"]
    else:
        value["mean"][0] += 0.1
    (copy / name).write_text(json.dumps(value))
    opened = Run.open(copy)
    assert [k for k in (0, 1) if not opened.fold(k).finished] == folds
    with pytest.raises(
        InputError, match=rf"fold 1 was trained with another {Path(name).name} \(.*{name} is missing or changed\)"
    ):
        opened.finished_folds()
    metrics = json.loads((copy / "fold_1/metrics.json").read_text())
    del metrics["files_sha256"]  # an earlier version
    (copy / "fold_1/metrics.json").write_text(json.dumps(metrics))
    assert opened.fold(1).finished


def test_real_commands_name_the_file(run, tmp_path, tiny_run):
    copy = Path(shutil.copytree(run, tmp_path / "runs" / "tiny"))
    images = str(tiny_run.data / "test/images")
    commands = {
        "decision.json": ["submit", "--run", "tiny", "--images", images, "--out", tmp_path / "a.zip"],
        "fold_1/metrics.json": ["tune", "--run", "tiny"],
        "fold_0/normalization.json": ["predict", "tiny", "--images", images, "--out", tmp_path / "out"],
        "splits.json": ["evaluate", "tiny"],
        "fingerprint.json": ["report", "tiny", "--out", tmp_path / "r.html"],
        "search/study.json": ["report", "tiny", "--out", tmp_path / "r.html"],
    }
    for name, command in commands.items():
        original = (copy / name).read_bytes()
        for content in (b"[" * 100_000, json.dumps({**json.loads(original), "newer": [1]}).encode()):
            (copy / name).write_bytes(content)
            result = marsls(*command, "--runs", copy.parent)
            assert result.code == 2 and str(copy / name) in result.err and "bug" not in result.err, result
        (copy / name).write_bytes(original)
    assert not (tmp_path / "a.zip").exists() and not (tmp_path / "out").exists() and not (tmp_path / "r.html").exists()


def test_a_damaged_cache_of_predictions_is_made_again(run, tmp_path, caplog):
    copy = Path(shutil.copytree(run, tmp_path / "tiny"))
    path = copy / "fold_0" / "oof.npz"
    before = _gather(Run.open(copy), None).probability
    arrays = dict(np.load(path))
    views = [key for key in arrays if key.startswith("view_")]
    for change in (
        lambda a: a[:, :-1],
        lambda a: a[:-1],
        lambda a: a.astype(np.float32),
        lambda a: a * np.float16(3),
        lambda a: a[0],
    ):
        np.savez(path, **{key: change(value) if key in views else value for key, value in arrays.items()})
        caplog.clear()
        assert np.allclose(_gather(Run.open(copy), None).probability, before, atol=1e-3)
        assert any("Predicting" in line for line in caplog.messages)
    (copy / "fold_0" / "best.weights.h5").write_bytes(b"damaged")
    assert "best.weights.h5 is missing or changed" in Run.open(copy).fold(0).trouble


@pytest.mark.parametrize("name", ["/tmp/x", "../x", "a/../../x", "", "..", "a\\b", "a+b"])
def test_names_that_lead_elsewhere_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for command in (
        *(
            ["train", "--run", name],
            ["tune", "--run", name],
            ["tune", "training", "--run", name],
            ["submit", "--run", name],
        ),
        *(["submit", "--verify", "a.zip", "--run", name], ["evaluate", name], ["report", name]),
        ["predict", name, "--images", "images", "--out", "out"],
    ):
        result = marsls(*command)
        assert result.code == 2 and f"--run {name}: expected" in result.err, (command, result)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize("text", ["a\0b", "a\udc80b"])
def test_arguments_that_are_no_text_are_refused(text, monkeypatch):
    for command in (
        ["check", text],
        ["train", "--run", text],
        ["score", text, "--masks", "x"],
        ["synth", text],
        ["train", "--set", text],
    ):
        result = marsls(*command)
        assert (
            result.code == 2
            and "expected text in UTF-8, without NUL characters" in result.err
            and "bug" not in result.err
        )
    if "\0" not in text:
        monkeypatch.setenv("MARSLS_DATA", text)
        assert "MARSLS_DATA=a\\udc80b: expected text" in marsls("check").err


@pytest.mark.parametrize("command", ["--version", "--help", "ledger show --help"])
def test_a_closed_pipe_is_no_error(command):
    code = f"import sys, time; sys.stdin.read(1); from competition.cli import main; sys.exit(main({command.split()!r}))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()  # before it writes
        process.stdin.write(b"x")
        process.stdin.close()
        assert (process.wait(), process.stderr.read()) == (141, b"")


def test_a_refit_is_told_by_its_full_name(run):
    assert RefitPlan.read(run / f"fold_{FULL}" / "full.json").pseudo.decision["averaging"] == "logit"
