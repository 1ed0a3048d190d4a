"""Optuna's journal storage with a heartbeat by file locks, and the repair of a truncated journal."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock
from optuna.storages.journal._file import BaseJournalFileLock, get_lock_file
from optuna.trial import FrozenTrial, TrialState

from marsls_keras.errors import InputError, RunError

logger = logging.getLogger(__name__)

_INTERVAL = 5  # seconds


class Journal(JournalStorage, BaseHeartbeat):
    """Optuna's journal storage with a heartbeat by file locks.

    With it, `fail_stale_trials` finds the trials of dead workers. A worker holds a file lock for each of its running
    trials, beside the journal. The operating system releases it when the worker ends, even if it is killed, so a
    running trial whose lock nobody holds is stale. For any number of workers on one machine, or on several that share
    the folder.

    Args:
        path: The file; created if it is missing. A truncated last line is repaired, see `repair`.
        on_stale: Called with study and trial after a stale trial was recorded as failed.

    Raises:
        InputError: If the file is no journal, or damaged elsewhere than at its end.
        RunError: If it cannot be repaired.

    Example:
        >>> storage = Journal(Path("journal.log"), on_stale=lambda study, trial: print(trial.number))
        >>> optuna.create_study(storage=storage, study_name="unet", direction="maximize").study_name
        'unet'
    """

    def __init__(self, path: Path, on_stale: Callable[[optuna.Study, FrozenTrial], None]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Symbolic links, Optuna's own choice, need a privilege on Windows.
        lock = JournalFileOpenLock(str(path)) if os.name == "nt" else JournalFileSymlinkLock(str(path))
        repair(path, lock)
        super().__init__(JournalFileBackend(str(path), lock_obj=lock))
        self._path, self._on_stale = path, on_stale
        self._held: dict[int, FileLock] = {}
        self._guard = FileLock(self._lock_path("claim"))

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial as `JournalStorage` does, and lock it if it is running."""
        with self._guard:
            trial_id = super().create_new_trial(study_id, template_trial)
            if template_trial is None:
                self._hold(trial_id)
        return trial_id

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Update a trial as `JournalStorage` does; lock it if it is running now, else release its lock."""
        with self._guard:
            changed = super().set_trial_state_values(trial_id, state, values)
            if state != TrialState.RUNNING:
                if trial_id in self._held:
                    self._held.pop(trial_id).release()
                self._lock_path(trial_id).unlink(missing_ok=True)
            elif changed:
                self._hold(trial_id)
        return changed

    def record_heartbeat(self, trial_id: int) -> None:
        """Do nothing: a lock needs no renewal."""

    def get_heartbeat_interval(self) -> int:
        """Return the seconds between two checks for stale trials."""
        return _INTERVAL

    def get_heartbeat_stale_trial_callback(self) -> Callable[[optuna.Study, FrozenTrial], None]:
        """Return the function that is called with each stale trial."""
        return self._on_stale

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        with self._guard:
            running = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
            return [trial._trial_id for trial in running if self._is_free(trial._trial_id)]

    def _hold(self, trial_id: int) -> None:
        self._held[trial_id] = FileLock(self._lock_path(trial_id))
        self._held[trial_id].acquire()

    def _is_free(self, trial_id: int) -> bool:
        try:
            with FileLock(self._lock_path(trial_id), timeout=0):
                return trial_id not in self._held
        except Timeout:
            return False

    def _lock_path(self, of: int | str) -> Path:
        name = of if isinstance(of, str) else f"trial_{of}"
        return self._path.with_name(f".{self._path.name}.{name}.lock")


def repair(path: Path, lock: BaseJournalFileLock) -> None:
    r"""Cut an incomplete record off the end of a journal, and keep a copy of the damaged file.

    A killed process or an interrupted copy leaves such a record.

    Args:
        path: The journal; it need not exist.
        lock: The lock that every process holds while it appends to the journal.

    Raises:
        InputError: If a line before the last is damaged, so that what follows cannot be trusted, or there is no whole
            line.
        RunError: If the damaged file cannot be kept, or the journal not be cut.

    Example:
        >>> path = Path("journal.log")
        >>> _ = path.write_text('{"op_code": 0}\n{"op_co')
        >>> repair(path, JournalFileSymlinkLock("journal.log"))
        >>> path.read_text()
        '{"op_code": 0}\n'
    """
    if not path.exists() or _whole(path) == path.stat().st_size:
        return
    with get_lock_file(lock):  # else this might be a line that another worker is writing
        whole, size = _whole(path), path.stat().st_size
        if whole == size:
            return
        aside = next(
            p for i in range(1, 10**6) if not (p := path.with_name(f"{path.stem}.damaged-{i}{path.suffix}")).exists()
        )
        try:
            shutil.copy2(path, aside)
            os.truncate(path, whole)
        except OSError as error:
            raise RunError(f"{path} has a torn end and could not be repaired: {error.strerror}.") from None
    logger.warning(
        f"{path} had a torn end: the last {size - whole} bytes were cut off. The damaged file is kept as {aside}."
    )


def _whole(path: Path) -> int:
    """Return the number of bytes of a journal, from its beginning, that are complete lines of JSON."""
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
            raise InputError(
                f"{path} {what}, so it cannot be used or repaired. Remove it, or give another --storage or --run."
            )
    return good


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
