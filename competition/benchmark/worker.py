"""Do the jobs of a benchmark: claim them from a shared study, each in its own process, and store their results."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from competition.benchmark.plan import Job
from competition.benchmark.step import StepRequest
from competition.processes import PROGRAM
from competition.search.storage import REASON, Storage, reason_of
from competition.search.worker import TrialWorker
from marsls_keras.config import write_config
from marsls_keras.errors import InputError
from marsls_keras.files import read_json

logger = logging.getLogger(__name__)

_JOB, _RESULT, _DATA = "job", "result", "data"


def open_study(name: str, storage: Storage, data_sha256: str) -> optuna.Study:
    """Open the study that holds the jobs and results of a benchmark, or create it.

    Raises:
        InputError: If it was begun on other tiles.

    Example:
        >>> open_study("mmlsv2-2", open_storage("journal.log"), sha256)  # doctest: +SKIP
    """
    study = optuna.create_study(storage=storage, study_name=f"benchmark {name}", load_if_exists=True)
    if study.user_attrs.get(_DATA, data_sha256) != data_sha256:
        raise InputError(
            f"Benchmark {name} was begun on other tiles. Choose another name with --name, or remove its folder."
        )
    study.set_user_attr(_DATA, data_sha256)
    return study


def results(study: optuna.Study, jobs: Sequence[Job]) -> dict[str, dict[str, Any]]:
    """Return the results of the jobs that are done, by key.

    A fold counts as done only if all predictions of its job were made.

    Example:
        >>> results(optuna.create_study(), [])
        {}
    """
    wanted = {job.key: set(job.predictions) for job in jobs}
    found = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        result = trial.user_attrs[_RESULT]
        key = trial.user_attrs[_JOB]
        if key in wanted and wanted[key] <= set(result.get("tiles", ())):
            found[key] = result
    return found


def failures(study: optuna.Study, jobs: Sequence[Job]) -> dict[str, str]:
    """Return why jobs failed that are not done and that nobody is doing, by key: the last reason of each.

    Example:
        >>> failures(optuna.create_study(), [])
        {}
    """
    done = results(study, jobs)
    found: dict[str, str] = {}
    for trial in study.get_trials(deepcopy=False):
        key = str(trial.user_attrs[_JOB])
        if trial.state == TrialState.FAIL:
            found[key] = reason_of(trial)
        elif trial.state == TrialState.RUNNING:
            found.pop(key, None)
    return {job.key: found[job.key] for job in jobs if job.key in found and job.key not in done}


class BenchmarkWorker(TrialWorker):
    """Do the jobs of a benchmark that are not done, each in its own process.

    Any number of workers share a study, also with other rows and epochs: each takes its own jobs, and a job that
    another does or has done is not done again. A job that failed is tried again by the next command; one whose worker
    was killed, or stopped, by any worker.

    Args:
        study: From `open_study`.
        storage: Its storage.
        jobs: The jobs, in order.
        folder: Folder of the benchmark, in which the runs are.
        data: Data folder.
        environments: Environment variables of each process that may run at once.

    Example:
        >>> BenchmarkWorker(study, storage, plan.jobs(), folder, Path("data"), [os.environ]).run()  # doctest: +SKIP
    """

    command: Sequence[str] = (*PROGRAM, "benchmark-step")

    def __init__(
        self,
        study: optuna.Study,
        storage: Storage,
        jobs: Sequence[Job],
        folder: Path,
        data: Path,
        environments: Sequence[Mapping[str, str]],
    ) -> None:
        super().__init__(study, storage, environments)
        self.jobs = {job.key: job for job in jobs}
        self._folder, self._data = folder, data
        self._tried: set[int] = {trial.number for trial in study.get_trials(deepcopy=False)}
        self._began = time.monotonic()
        self._own = 0

    def _claim(self) -> optuna.Trial | None:
        """Return a trial of the first job that is open, or None if none is."""
        while job := self._open():
            if not self._trials(job.key, TrialState.WAITING):
                self.study.enqueue_trial({}, user_attrs={_JOB: job.key})
            # In order of numbers, so that of two workers the one with the lower number goes on.
            for trial in self._trials(job.key, TrialState.WAITING):
                if self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                    claimed = optuna.Trial(self.study, trial._trial_id)
                    if self._taken(job, trial.number):
                        self._tell(claimed, TrialState.PRUNED)
                        break
                    self.storage.record_heartbeat(trial._trial_id)
                    return claimed
        return None

    def _open(self) -> Job | None:
        """Return the first job that is not done, that nobody does, and that has not failed since this worker began."""
        done = results(self.study, list(self.jobs.values()))
        busy = {
            trial.user_attrs.get(_JOB)
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state == TrialState.RUNNING
            or (trial.state == TrialState.FAIL and REASON in trial.user_attrs and trial.number not in self._tried)
        }
        return next((job for key, job in self.jobs.items() if key not in done and key not in busy), None)

    def _taken(self, job: Job, number: int) -> bool:
        """Return whether another worker has done a job, or took it by an earlier trial."""
        return job.key in results(self.study, [job]) or any(
            trial.number < number for trial in self._trials(job.key, TrialState.RUNNING)
        )

    def _trials(self, key: str, state: TrialState) -> list[FrozenTrial]:
        found = self.study.get_trials(deepcopy=False, states=(state,))
        return [trial for trial in found if trial.user_attrs.get(_JOB) == key]

    def _start(self, trial: optuna.Trial) -> None:
        job = self._job(trial)
        folder = self._folder / job.run
        write_config(folder / "recipe.yaml", job.config)
        request = StepRequest(
            job.kind, str(folder), str(self._data), job.fold, list(job.predictions), str(self._result_file(job))
        )
        self._result_file(job).unlink(missing_ok=True)
        self._launch(trial, request.line(), folder / f"{job.kind}_{job.fold}.log")
        logger.info(f"{job.words}: began.")

    def _ended(self, trial: optuna.Trial, code: int) -> None:
        job = self._job(trial)
        result = read_json(self._result_file(job))
        trial.set_user_attr(_RESULT, result)
        self._tell(trial, TrialState.COMPLETE, 0.0)
        self._own += 1
        done = len(results(self.study, list(self.jobs.values())))
        left = (time.monotonic() - self._began) / self._own * (len(self.jobs) - done)
        soon = f"; about {left / 60:.0f} min left" if done < len(self.jobs) else ""
        logger.info(f"{job.words}: done ({done} of {len(self.jobs)}{soon}).")

    def _tell(
        self, trial: optuna.Trial, state: TrialState, value: float | None = None, reason: str | None = None
    ) -> None:
        stopped = reason is not None and self.stopped is not None
        # Without a reason, the job counts as one whose worker is gone, and is open for others.
        super()._tell(trial, state, value, None if stopped else reason)
        if state == TrialState.FAIL:
            logger.info(f"{self._job(trial).words}: {reason}")

    def _job(self, trial: optuna.Trial) -> Job:
        return self.jobs[trial.user_attrs[_JOB]]

    def _result_file(self, job: Job) -> Path:
        return self._folder / job.run / f"{job.kind}_{job.fold}.json"
