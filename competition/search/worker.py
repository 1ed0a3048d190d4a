"""Run the trials of an Optuna study, each in its own process, for any number of workers side by side."""

from __future__ import annotations

import logging
import signal
import subprocess
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import fail_stale_trials
from optuna.trial import TrialState

from competition.processes import last_error
from competition.search.storage import REASON, Storage

logger = logging.getLogger(__name__)

_POLL = 0.1  # seconds


@dataclass
class Running:
    """A trial whose process runs.

    Attributes:
        trial: The trial.
        process: Its process, which holds standard input open.
        environment: The environment variables that it was given.
        log: File with all that it says.

    Example:
        >>> Running(trial, process, {}, Path("trial.log")).trial.number  # doctest: +SKIP
        0
    """

    trial: optuna.Trial
    process: subprocess.Popen[bytes]
    environment: Mapping[str, str]
    log: Path


class TrialWorker(ABC):
    """Claim trials of a study and run each in its own process, until none is left or a signal comes.

    Any number of workers may share a study. A trial of a worker that is gone is recorded as failed.

    Args:
        study: Optuna's study.
        storage: Its storage.
        environments: The environment variables of each process that may run at once.

    Attributes:
        command: Program and arguments of a trial's process.
        stopped: The signal that ended the work early, or None.

    Example:
        >>> StudyWorker(plan, open_storage(plan.storage), [os.environ]).run()  # doctest: +SKIP
    """

    command: Sequence[str]

    def __init__(self, study: optuna.Study, storage: Storage, environments: Sequence[Mapping[str, str]]) -> None:
        self.study, self.storage = study, storage
        self._free = list(environments)
        self._running: list[Running] = []
        self.stopped: int | None = None

    def run(self) -> optuna.Study:
        """Run trials until the study has all of them, and return the study.

        Raises:
            RunError: If a file cannot be written.
        """
        from marsls_keras.signals import Signals

        due = time.monotonic()
        with Signals() as signals, warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used with Study.optimize")
            try:
                while True:
                    if signals.received and self.stopped is None:
                        self.stopped = signals.received
                        for running in self._running:
                            running.process.terminate()
                    for running in [r for r in self._running if r.process.poll() is not None]:
                        self._finish(running)
                    if time.monotonic() >= due:
                        for running in self._running:
                            self.storage.record_heartbeat(running.trial._trial_id)
                        fail_stale_trials(self.study)
                        due = time.monotonic() + (self.storage.get_heartbeat_interval() or 0)
                    while self._free and self.stopped is None and (trial := self._claim()):
                        self._start(trial)
                    if not self._running:
                        break
                    time.sleep(_POLL)
            finally:  # processes are left only after a second signal or an error
                for running in self._running:
                    running.process.kill()
        return self.study

    @abstractmethod
    def _claim(self) -> optuna.Trial | None:
        """Return a running trial for this worker, or None if the study has no more."""

    @abstractmethod
    def _start(self, trial: optuna.Trial) -> None:
        """Start the process of a trial with `_launch`, or record that it failed."""

    @abstractmethod
    def _ended(self, trial: optuna.Trial, code: int) -> None:
        """Record how a trial ended whose process had this exit code: 0, or one that is no failure."""

    def _tell(
        self, trial: optuna.Trial, state: TrialState, value: float | None = None, reason: str | None = None
    ) -> None:
        """Record how a trial ended."""
        if reason is not None:
            with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another worker has recorded it as failed
                trial.set_user_attr(REASON, reason)
        self.study.tell(trial, value, state, skip_if_finished=True)

    def _launch(self, trial: optuna.Trial, request: bytes, log: Path) -> None:
        """Start the process of a trial in the next free environment; it reads the request from standard input."""
        environment = self._free.pop()
        with open(log, "wb") as file:
            # Its own session, so that Ctrl-C reaches it only once, through this process.
            process = subprocess.Popen(
                self.command, env=environment, stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True
            )
        self._running.append(Running(trial, process, environment, log))
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it ended at once; its exit code says why
            process.stdin.write(request)
            process.stdin.flush()  # the pipe stays open: the trial ends when this process does

    def _finish(self, running: Running) -> None:
        code = running.process.returncode
        if running.process.stdin:
            with suppress(BrokenPipeError):
                running.process.stdin.close()
        self._running.remove(running)
        self._free.append(running.environment)
        if code and self.stopped is not None and code not in self._good:
            self._tell(running.trial, TrialState.FAIL, reason=f"stopped by {signal.Signals(self.stopped).name}")
        elif code and code not in self._good:
            self._tell(running.trial, TrialState.FAIL, reason=_reason(code, running.log))
        else:
            self._ended(running.trial, code)

    _good: tuple[int, ...] = ()
    """Exit codes other than 0 that are no failure."""


def _reason(code: int, log: Path) -> str:
    """Return why a trial's process failed, from its exit code and log."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return f"exit code {code}: {last_error(lines)}" if lines else f"exit code {code}, without a message"
