"""Storages of a study: repair of a journal, and detection of dead workers."""

import json
import multiprocessing
import os
import time

import optuna
import pytest
from optuna.storages import fail_stale_trials
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.trial import TrialState

from competition.search import storage
from competition.search.storage import open_storage, reason_of
from marsls_keras.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage", "ignore:.*fail_stale_trials is experimental")


def study_of(store):
    if store.get_all_studies():
        return optuna.load_study(storage=store, study_name="s")  # create_study would add a line to the journal
    return optuna.create_study(storage=store, study_name="s", direction="maximize")


def fill(path, trials=3):
    """Write a journal with finished trials, and return its bytes."""
    study_of(open_storage(str(path))).optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=trials)
    return path.read_bytes()


@pytest.mark.parametrize(
    "tail", [b'{"op_code":8,"worker', b'{"op_code":8}x\n', b"\0" * 200, b"3\n", b'{"op_code":5,"trial_id":2']
)
def test_a_torn_end_is_cut_off_and_the_damaged_file_kept(tmp_path, tail, caplog):
    path = tmp_path / "search" / "journal.log"
    whole = fill(path)
    for again in (1, 2):  # each damaged file has a name of its own
        path.write_bytes(whole + tail)
        study = study_of(open_storage(str(path)))
        assert path.read_bytes() == whole
        aside = path.with_name(f"journal.damaged-{again}.log")
        assert aside.read_bytes() == whole + tail
        assert (
            caplog.messages[-1]
            == f"{path} had a torn end: the last {len(tail)} bytes were cut off. The damaged file is kept as {aside}."
        )
        assert [trial.number for trial in study.trials] == [0, 1, 2]
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)  # it goes on
    assert len(study_of(open_storage(str(path))).trials) == 4 and len(caplog.messages) == 2


def test_a_journal_cut_at_any_byte_is_repaired(tmp_path):
    """The complete lines are left, and Optuna reads them."""
    path = tmp_path / "journal.log"
    whole = fill(path, trials=2)
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole), 7):
        path.write_bytes(whole[:length])
        store = open_storage(str(path))
        assert path.read_bytes() == whole[: whole.rindex(b"\n", 0, length) + 1]
        assert len(store.get_all_studies()) == 1
    path.write_bytes(b"")
    assert open_storage(str(path)).get_all_studies() == []


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
    assert study_of(open_storage(str(path))).user_attrs == {"a": 1}
    writer.join()
    assert caplog.messages == [] and path.read_bytes() == whole + line and len(list(tmp_path.glob("*damaged*"))) == 0


@pytest.mark.parametrize(
    "content,expected",
    [(b'{"a":1}\nrubbish\n{"b":2}\n', "damaged in line 2, and lines follow"), (b"a: 1\n", "is no journal")],
)
def test_another_file_is_refused_and_left_alone(tmp_path, content, expected):
    path = tmp_path / "journal.log"
    path.write_bytes(content)
    with pytest.raises(InputError, match=expected) as caught:
        open_storage(str(path))
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content and [p.name for p in tmp_path.iterdir()] == ["journal.log"]


def begin_and_die(path):
    study_of(open_storage(str(path))).ask()
    os._exit(1)


def test_a_trial_of_a_dead_worker_is_recorded_as_failed_and_that_of_a_living_one_is_not(tmp_path, caplog):
    path = tmp_path / "journal.log"
    alive = study_of(open_storage(str(path)))
    mine = alive.ask()
    worker = multiprocessing.get_context("spawn").Process(target=begin_and_die, args=(path,))
    worker.start()
    worker.join(60)
    study = study_of(open_storage(str(path)))
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING] * 2
    for asked in (study, study, alive):
        fail_stale_trials(asked)
        assert caplog.messages == ["Trial 1 is given up: its worker is gone."]
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.FAIL]
    assert reason_of(study.trials[1]) == "its worker ended without a word"
    alive.tell(mine, 0.5)
    fail_stale_trials(study)
    assert len(caplog.messages) == 1 and sorted(p.name for p in tmp_path.iterdir()) == [
        ".journal.log.claim.lock",
        "journal.log",
    ]


def test_a_trial_that_was_given_back_is_nobodys_until_it_is_asked_for_again(tmp_path, caplog):
    path = tmp_path / "journal.log"
    first, second = (study_of(open_storage(str(path))) for _ in range(2))
    first._storage.set_trial_state_values(first.ask()._trial_id, TrialState.WAITING)
    again = second.ask()
    assert again.number == 0
    fail_stale_trials(first)
    assert caplog.messages == [] and first.trials[0].state == TrialState.RUNNING
    second.tell(again, 0.5)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".journal.log.claim.lock", "journal.log"]


def test_two_studies_may_share_a_journal(tmp_path, caplog):
    """Trial 0 of each has a lock of its own."""
    path = tmp_path / "journal.log"
    storages = [open_storage(str(path)) for _ in range(2)]
    studies = [
        optuna.create_study(storage=opened, study_name=name) for opened, name in zip(storages, "ab", strict=True)
    ]
    trials = [study.ask() for study in studies]
    assert [trial.number for trial in trials] == [0, 0]
    studies[0].tell(trials[0], 0.5)
    fail_stale_trials(optuna.load_study(storage=open_storage(str(path)), study_name="b"))
    assert caplog.messages == []


def test_in_a_database_a_trial_without_heartbeat_is_recorded_as_failed(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(storage, "HEARTBEAT", 1)
    url = f"sqlite:///{tmp_path}/search.db"
    dead, alive = (study_of(open_storage(url)) for _ in range(2))
    first, second = dead.ask(), alive.ask()
    dead._storage.record_heartbeat(first._trial_id)
    end = time.monotonic() + 20
    while not caplog.messages and time.monotonic() < end:
        alive._storage.record_heartbeat(second._trial_id)
        fail_stale_trials(alive)
        time.sleep(0.2)
    assert caplog.messages == ["Trial 0 is given up: its worker is gone."]
    assert [trial.state for trial in alive.trials] == [TrialState.FAIL, TrialState.RUNNING]
    assert reason_of(alive.trials[0]) == "its worker ended without a word"


@pytest.mark.parametrize(
    "where,expected",
    [
        (
            "sqlite:////nowhere/at/all/search.db",
            "--storage sqlite:////nowhere/at/all/search.db cannot be used: .*unable to open",
        ),
        ("oracle+thing://x", "expected a file, or a URL such as postgresql"),
        ("mysql+nothing://user:secret@host/name", "--storage mysql.nothing://host/name"),
        (
            "postgresql://user:secret@127.0.0.1:1/name",
            "--storage postgresql://127.0.0.1:1/name cannot be used: .*connect",
        ),
        ("redis://localhost", "Redis has no heartbeat"),
    ],
)
def test_a_storage_that_cannot_be_used(where, expected):
    with pytest.raises(InputError, match=f"(?s){expected}") as caught:
        open_storage(where)
    assert "secret" not in str(caught.value)
