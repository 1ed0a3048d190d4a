"""Where a study is kept: repairing a journal, and telling whose worker has died."""

import json
import multiprocessing
import os
import time
import warnings

import optuna
import pytest
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.trial import TrialState

from competition.search.storage import Database, Journal, open_store, reason_of
from marsls_keras.errors import InputError

warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def study_of(store):
    if store.storage.get_all_studies():
        return optuna.load_study(storage=store.storage, study_name="s")  # create_study would add a line to the journal
    return optuna.create_study(storage=store.storage, study_name="s", direction="maximize")


def fill(path, trials=3):
    """Write a journal of so many finished trials; return its bytes."""
    study_of(Journal(path)).optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=trials)
    return path.read_bytes()


@pytest.mark.parametrize("tail", [b'{"op_code":8,"worker', b'{"op_code":8}x\n', b"\0" * 200, b"3\n", b'{"op_code":5,"trial_id":2'])
def test_a_torn_end_is_cut_off_and_the_damaged_file_kept(tmp_path, tail, caplog):
    path = tmp_path / "search" / "journal.log"
    whole = fill(path)
    for again in (1, 2):  # each damaged file has a name of its own
        path.write_bytes(whole + tail)
        study = study_of(Journal(path))
        assert path.read_bytes() == whole
        aside = path.with_name(f"journal.damaged-{again}.log")
        assert aside.read_bytes() == whole + tail
        assert (
            caplog.messages[-1] == f"{path} had a torn end: the last {len(tail)} bytes were cut off. The damaged file is kept as {aside}."
        )
        assert [trial.number for trial in study.trials] == [0, 1, 2]
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)  # it goes on
    assert len(study_of(Journal(path)).trials) == 4 and len(caplog.messages) == 2


def test_a_journal_cut_at_any_byte_is_repaired(tmp_path):
    """Half a copy: what is left is the whole lines, and Optuna reads them."""
    path = tmp_path / "journal.log"
    whole = fill(path, trials=2)
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole), 7):
        path.write_bytes(whole[:length])
        store = Journal(path)
        assert path.read_bytes() == whole[: whole.rindex(b"\n", 0, length) + 1]
        assert len(store.storage.get_all_studies()) == 1
    path.write_bytes(b"")
    assert Journal(path).storage.get_all_studies() == []


def test_a_line_that_is_just_being_written_is_no_torn_end(tmp_path, caplog):
    path = tmp_path / "journal.log"
    whole = fill(path)
    line = json.dumps({"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"a": 1}}).encode() + b"\n"
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def write_slowly():
        lock = JournalFileSymlinkLock(str(path))
        lock.acquire()
        with open(path, "ab", buffering=0) as file:
            file.write(line[:20])
            ready.set()
            time.sleep(0.7)
            file.write(line[20:])
        lock.release()
        os._exit(0)

    writer = context.Process(target=write_slowly)
    writer.start()
    assert ready.wait(10)
    assert study_of(Journal(path)).user_attrs == {"a": 1}
    writer.join()
    assert caplog.messages == [] and path.read_bytes() == whole + line and len(list(tmp_path.glob("*damaged*"))) == 0


@pytest.mark.parametrize(
    "content,expected", [(b'{"a":1}\nrubbish\n{"b":2}\n', "damaged in line 2, and lines follow"), (b"a: 1\n", "is no journal")]
)
def test_another_file_is_refused_and_left_alone(tmp_path, content, expected):
    path = tmp_path / "journal.log"
    path.write_bytes(content)
    with pytest.raises(InputError, match=expected) as caught:
        Journal(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content and [p.name for p in tmp_path.iterdir()] == ["journal.log"]


def begin_and_die(path):
    store = Journal(path)
    with store.claiming():
        store.begin(study_of(store).ask())
    os._exit(1)


def test_a_trial_of_a_dead_worker_is_recorded_as_failed_and_that_of_a_living_one_is_not(tmp_path):
    path = tmp_path / "journal.log"
    alive = Journal(path)
    mine = study_of(alive).ask()
    alive.begin(mine)
    worker = multiprocessing.get_context("spawn").Process(target=begin_and_die, args=(path,))
    worker.start()
    worker.join(60)
    other = Journal(path)
    study = study_of(other)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING] * 2
    assert other.reap(study) == [1] and other.reap(study) == [] and alive.reap(study) == []
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.FAIL]
    assert reason_of(study.trials[1]) == "its worker ended without a word"
    study.tell(mine, 0.5)
    alive.end(mine)
    assert other.reap(study) == [] and sorted(p.name for p in tmp_path.iterdir()) == [".journal.log.claim.lock", "journal.log"]


def test_in_a_database_a_trial_without_heartbeat_is_recorded_as_failed(tmp_path):
    url = f"sqlite:///{tmp_path}/search.db"
    dead, alive = Database(url, beat=1), Database(url, beat=1)
    with dead.claiming():
        first, second = study_of(dead).ask(), study_of(alive).ask()
        dead.begin(first)
        alive.begin(second)
    study = study_of(Database(url, beat=1))
    end = time.monotonic() + 20
    reaped = []
    while not reaped and time.monotonic() < end:
        alive.beat([second])
        reaped = alive.reap(study)
        time.sleep(0.2)
    assert reaped == [0]
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.RUNNING]
    assert reason_of(study.trials[0]) == "its worker ended without a word"


@pytest.mark.parametrize(
    "where,expected",
    [
        ("sqlite:////nowhere/at/all/search.db", "--storage sqlite:////nowhere/at/all/search.db cannot be used: .*unable to open"),
        ("oracle+thing://x", "expected a file, or a URL such as postgresql"),
        ("mysql+nothing://user:secret@host/name", "--storage mysql.nothing://host/name"),
        ("postgresql://user:secret@127.0.0.1:1/name", "--storage postgresql://127.0.0.1:1/name cannot be used: .*connect"),
        ("redis://localhost", "Redis has no heartbeat"),
    ],
)
def test_a_storage_that_cannot_be_used(where, expected):
    with pytest.raises(InputError, match=f"(?s){expected}") as caught:
        open_store(where)
    assert "secret" not in str(caught.value)
