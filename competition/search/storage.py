"""Where a study is kept: a journal file, or a database that several machines reach. Both tell whose worker has died."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import optuna
from filelock import FileLock, Timeout
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, fail_stale_trials
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock
from optuna.trial import TrialState

from marsls_keras.errors import InputError, RunError

logger = logging.getLogger(__name__)

REASON = "reason"
"""The attribute of a failed trial that says why it failed."""

_DIED = "its worker ended without a word"
_BEAT = 20  # seconds; three missed ones are taken for a dead worker
_TRIES = 5


class Store(Protocol):
    """What a search needs of a storage."""

    storage: BaseStorage

    def claiming(self) -> Any:
        """Return a context within which a trial is begun, so that nobody takes it for one of a dead worker."""

    def begin(self, trial: optuna.trial.Trial) -> None:
        """Mark a trial as that of this worker."""

    def beat(self, trials: list[optuna.trial.Trial]) -> None:
        """Say that this worker is alive, where that is needed."""

    def end(self, trial: optuna.trial.Trial) -> None:
        """Take back the mark."""

    def reap(self, study: optuna.Study) -> list[int]:
        """Record running trials whose worker has died as failed; return their numbers."""


class Journal:
    """A journal file: for any number of workers on one machine, or on several that share the folder.

    A worker holds a lock file for each of its trials, beside the journal. The operating system lets go of it when the worker ends, however
    it ends.

    Args:
        path: The file; made if it is not there. A torn end is repaired.

    Raises:
        InputError: If it is no journal, or damaged otherwise.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Symbolic links, Optuna's own choice, need a privilege on Windows.
        lock = JournalFileOpenLock(str(path)) if os.name == "nt" else JournalFileSymlinkLock(str(path))
        repair(path, lock)
        self.storage: BaseStorage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
        self._held: dict[int, FileLock] = {}

    def _lock(self, what: str) -> FileLock:
        return FileLock(self.path.with_name(f".{self.path.name}.{what}.lock"))

    def claiming(self) -> Any:
        """Return a lock that all workers share."""
        return self._lock("claim")

    def begin(self, trial: optuna.trial.Trial) -> None:
        """Hold the trial's lock."""
        self._held[trial.number] = self._lock(f"trial_{trial.number}")
        self._held[trial.number].acquire()

    def beat(self, trials: list[optuna.trial.Trial]) -> None:
        """Do nothing: a lock needs no heartbeat."""

    def end(self, trial: optuna.trial.Trial) -> None:
        """Let go of the trial's lock."""
        lock = self._held.pop(trial.number)
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)

    def reap(self, study: optuna.Study) -> list[int]:
        """Fail the running trials whose lock nobody holds."""
        dead = []
        with self.claiming():
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if trial.number in self._held:
                    continue
                lock = self._lock(f"trial_{trial.number}")
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    continue
                self.storage.set_trial_user_attr(trial._trial_id, REASON, _DIED)
                self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
                lock.release()
                Path(lock.lock_file).unlink(missing_ok=True)
                dead.append(trial.number)
        return dead


class Database:
    """A database by its URL, for workers on any number of machines. Workers send heartbeats; trials without one are given up.

    Args:
        url: As SQLAlchemy has it, such as postgresql://user:password@host/name or sqlite:///search.db.
        beat: Seconds between heartbeats; three missed ones are taken for a dead worker.

    Raises:
        InputError: If there is no driver for it, or it cannot be reached.
    """

    def __init__(self, url: str, beat: int = _BEAT) -> None:
        scheme, colon, rest = url.partition("://")
        if scheme in ("postgresql", "postgres"):
            url = f"postgresql+psycopg://{rest}"  # SQLAlchemy's own choice, psycopg2, is not what the extra brings
        self._interval, self._last = beat, 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.storage: BaseStorage = _connect(url, f"{scheme}{colon}{rest.rpartition('@')[2]}", beat)

    def claiming(self) -> Any:
        """Return a context without anything to wait for: a trial without heartbeat is not given up."""
        return _without_hint()

    def begin(self, trial: optuna.trial.Trial) -> None:
        """Send the first heartbeat."""
        self._record(trial)

    def beat(self, trials: list[optuna.trial.Trial]) -> None:
        """Send a heartbeat for each trial if it is time."""
        if time.monotonic() - self._last >= self._interval:
            for trial in trials:
                self._record(trial)
            self._last = time.monotonic()

    def end(self, trial: optuna.trial.Trial) -> None:
        """Do nothing: a finished trial needs no heartbeat."""

    def reap(self, study: optuna.Study) -> list[int]:
        """Fail the running trials that have had no heartbeat for long."""
        running = [trial.number for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            fail_stale_trials(study)
        trials = study.get_trials(deepcopy=False)
        # Another worker may have failed it, for a reason that is told in the trial.
        return [number for number in running if trials[number].state == TrialState.FAIL and REASON not in trials[number].user_attrs]

    def _record(self, trial: optuna.trial.Trial) -> None:
        assert isinstance(self.storage, RDBStorage)
        self.storage.record_heartbeat(trial._trial_id)


def open_store(where: str) -> Store:
    """Open a storage: a database if there is :// in its name, else a journal file.

    Raises:
        InputError: If it cannot be used.
    """
    if "://" not in where:
        return Journal(Path(where))
    if where.startswith("redis"):
        raise InputError(
            "--storage redis://…: Redis has no heartbeat, so dead workers would not be noticed. Use a journal or postgresql://…."
        )
    return Database(where)


def reason_of(trial: optuna.trial.FrozenTrial) -> str:
    """Return why a trial failed."""
    return trial.user_attrs.get(REASON, _DIED)


def _connect(url: str, shown: str, beat: int) -> RDBStorage:
    """Return the storage of a database; two workers that make its tables at the same time try again."""
    from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, OperationalError, ProgrammingError

    for left in reversed(range(_TRIES)):
        try:
            return RDBStorage(url, heartbeat_interval=beat, grace_period=3 * beat)
        except (IntegrityError, ProgrammingError, OperationalError) as error:
            if left:
                time.sleep(0.3)
                continue
            raise InputError(f"--storage {shown} cannot be used: {str(error.orig or error).strip()}") from None
        except ImportError:
            hint = 'pip install "marsls-keras[postgres]" brings it.' if url.startswith("postgresql") else "Install it with pip."
            raise InputError(f"--storage {shown}: the driver of this database is not installed. {hint}") from None
        except (ArgumentError, NoSuchModuleError, ValueError) as error:
            raise InputError(f"--storage {shown}: expected a file, or a URL such as postgresql://user@host/name. {error}") from None
    raise AssertionError("unreachable")


def repair(path: Path, lock: Any) -> None:
    """Cut off what a copy or a killed process left half written at the end of a journal; the damaged file is kept beside it.

    Args:
        path: The journal, which need not exist.
        lock: Its lock, which whoever appends to it holds.

    Raises:
        InputError: If a line before the last is damaged, so that what follows cannot be trusted, or there is no whole line.
        RunError: If the file cannot be kept or cut.
    """
    if not path.exists() or _whole(path) == path.stat().st_size:
        return
    with _holding(lock):  # else this might be another worker's line that is just being written
        whole = _whole(path)
        size = path.stat().st_size
        if whole == size:
            return
        aside = next(p for i in range(1, 10**6) if not (p := path.with_name(f"{path.stem}.damaged-{i}{path.suffix}")).exists())
        try:
            shutil.copy2(path, aside)
            os.truncate(path, whole)
        except OSError as error:
            raise RunError(f"{path} has a torn end and could not be repaired: {error.strerror}.") from None
    logger.info(f"{path} had a torn end: the last {size - whole} bytes were cut off. The damaged file is kept as {aside}.")


def _whole(path: Path) -> int:
    """Return how many bytes of a journal, from its beginning, are whole lines of JSON."""
    good, lines = 0, 0
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n") or not _is_record(line):
                break
            good, lines = good + len(line), lines + 1
        else:
            return good
        if not good or file.read(1):
            what = f"is damaged in line {lines + 1}, and lines follow" if good else "is no journal of a study"
            raise InputError(f"{path} {what}, so it cannot be used or repaired. Remove it, or give another --storage or --run.")
    return good


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


@contextmanager
def _without_hint() -> Iterator[None]:
    """Hold back what Optuna says to those who ask for a trial and send no heartbeat for it; here, the worker does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Heartbeat of storage")
        yield


@contextmanager
def _holding(lock: Any) -> Iterator[None]:
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
