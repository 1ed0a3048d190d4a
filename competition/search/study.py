"""The search over training: ask Optuna for trials, train each in a process of its own, and tell how it ended."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from competition.processes import last_error
from competition.search.space import Space
from competition.search.storage import REASON, Store
from competition.search.study_files import tidy, write_study
from competition.search.trial import PRUNED, Order, build_pruner
from marsls_keras.config import Config, Range, differences, parse_config, without_removed, write_config
from marsls_keras.counts import Counts
from marsls_keras.errors import InputError, MarslsError, RunError, listing
from marsls_keras.records import read_record
from marsls_keras.runs.records import MetricsRecord

logger = logging.getLogger(__name__)


COMMAND = (sys.executable, "-m", "competition.cli", "trial")
"""What trains a trial: a program that reads an `Order` and leaves a run with finished folds."""

_POLL = 0.1  # seconds
_REAP = 5.0


@dataclass(frozen=True)
class Plan:
    """What is searched, and how.

    Attributes:
        folder: Where trials and results go; the folder `search` of a run.
        name: Name of the study; that of the run.
        space: The configuration and what is tried.
        data: Data folder.
        data_sha256: Fingerprint of its tiles.
        folds: The folds that a trial trains; it is judged by the mIoU over the pixels of all tiles that they hold out.
        trials: How many trials the study is to have, with those it has.
        pruner: Name of the pruner.
        storage: Where the study is, as `open_store` takes it.
    """

    folder: Path
    name: str
    space: Space
    data: Path
    data_sha256: str
    folds: list[int]
    trials: int
    pruner: str
    storage: str


@dataclass
class _Running:
    trial: optuna.Trial
    process: subprocess.Popen[bytes]
    environment: Mapping[str, str]


class Search:
    """A worker: goes on with a study until it has all trials, or a signal comes.

    Args:
        plan: What is searched.
        store: The opened storage.
        environments: The environment variables of each process that may run at once.
        command: What trains a trial.

    Raises:
        InputError: If there is a study of this name of something else, or trials of another study are in the folder.
    """

    def __init__(self, plan: Plan, store: Store, environments: Sequence[Mapping[str, str]], command: Sequence[str] = COMMAND) -> None:
        self.plan, self.store, self.command = plan, store, command
        pruner = build_pruner(plan.pruner, plan.space.base.training.epochs * len(plan.folds))
        self.study = optuna.create_study(
            storage=store.storage, study_name=plan.name, direction="maximize", load_if_exists=True, pruner=pruner
        )
        self._agree()
        self._free = list(environments)
        self._running: list[_Running] = []
        self.stopped: int | None = None

    def run(self) -> optuna.Study:
        """Train trials; return the study. `stopped` is the signal that ended it early, or None.

        Raises:
            RunError: If a file cannot be written.
        """
        from marsls_keras.signals import Signals

        reaped = -_REAP
        with Signals() as signals:
            try:
                while True:
                    if signals.received and self.stopped is None:
                        self.stopped = signals.received
                        for running in self._running:
                            running.process.terminate()
                    for running in [r for r in self._running if r.process.poll() is not None]:
                        self._finish(running)
                    if time.monotonic() - reaped >= _REAP:
                        for number in self.store.reap(self.study):
                            logger.info(f"Trial {number} is given up: its worker is gone.")
                        reaped = time.monotonic()
                    while self._free and self.stopped is None and (trial := self._claim()):
                        self._start(trial)
                    if not self._running:
                        break
                    self.store.beat([running.trial for running in self._running])
                    time.sleep(_POLL)
            finally:  # nothing runs any more, unless a second signal came or a file could not be written
                for running in self._running:
                    running.process.kill()
        write_study(self.plan.folder, self.study, self.plan.space)
        return self.study

    def _agree(self) -> None:
        """Note in a new study what it is about, and refuse to go on with one that is about something else."""
        plan = self.plan
        keys = {key: values.model_dump() if isinstance(values, Range) else list(values) for key, values in plan.space.keys.items()}
        facts = {"config": plan.space.base.model_dump(mode="json"), "search": keys, "folds": plan.folds, "data": plan.data_sha256}
        facts = json.loads(json.dumps(facts))
        known = dict(self.study.user_attrs)
        if "config" in known:  # of a study that an earlier version began
            known["config"] = without_removed(known["config"])
        for name, value in facts.items():
            if name not in known:
                self.study.set_user_attr(name, value)
        changed = [name for name, value in facts.items() if known.get(name, value) != value]
        if changed:
            found = [f"{name}: {known[name]} → {facts[name]}" for name in changed if name not in ("config", "data")]
            found += differences(parse_config(known["config"], "of the study"), plan.space.base) if "config" in changed else []
            found += ["the tiles in the data folder"] if "data" in changed else []
            raise InputError(f"Study {plan.name} was begun otherwise:{listing(found)}\nChoose another name with --run.")
        numbers = {trial.number for trial in self.study.get_trials(deepcopy=False)}
        foreign = [path.name for path in plan.folder.glob("trial_*") if path.name.removeprefix("trial_") not in map(str, numbers)]
        if foreign:
            raise InputError(f"{plan.folder} holds trials of another study, such as {sorted(foreign)[0]}. Choose another name with --run.")

    def _claim(self) -> optuna.Trial | None:
        """Return a new trial of this worker, or None if the study has all."""
        with self.store.claiming():
            if self._begun() >= self.plan.trials:
                return None
            trial = self.study.ask()
            self.store.begin(trial)
            if self._begun(before=trial.number) >= self.plan.trials:  # another worker was faster; it waits for a longer study
                self.store.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
                self.store.end(trial)
                return None
        # A seed for each trial: workers draw differently, and a study that goes on does not begin its draws anew.
        seed = self.plan.space.base.training.seed + trial.number
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        return trial

    def _begun(self, before: int | None = None) -> int:
        trials = self.study.get_trials(deepcopy=False)
        return sum(trial.state != TrialState.WAITING and (before is None or trial.number < before) for trial in trials)

    def _start(self, trial: optuna.Trial) -> None:
        plan, folder = self.plan, self.plan.folder / f"trial_{trial.number}"
        try:
            config = plan.space.configuration(plan.space.draw(trial))
        except InputError as error:
            self._tell(trial, error=str(error))
            return
        write_config(folder / "recipe.yaml", config)
        order = Order(plan.storage, plan.name, trial._trial_id, plan.pruner, str(folder), str(plan.data), plan.folds)
        environment = self._free.pop()
        with open(folder / "trial.log", "wb") as log:
            # In a session of its own, so that Ctrl-C reaches it once, through here.
            process = subprocess.Popen(self.command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)
        self._running.append(_Running(trial, process, environment))
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it ended at once, and its exit code tells
            process.stdin.write(order.line())
            process.stdin.flush()  # and stays open as long as this process lives, which the trial watches
        logger.info(f"Trial {trial.number}: {in_words(trial.params)}")

    def _finish(self, running: _Running) -> None:
        code = running.process.returncode
        if running.process.stdin:
            with suppress(BrokenPipeError):
                running.process.stdin.close()
        self._running.remove(running)
        self._free.append(running.environment)
        folder = self.plan.folder / f"trial_{running.trial.number}"
        if code == PRUNED:
            self._tell(running.trial, pruned=True)
        elif self.stopped is not None and code:
            self._tell(running.trial, error=f"stopped by {signal.Signals(self.stopped).name}")
        elif code:
            self._tell(running.trial, error=_reason(code, folder / "trial.log"))
        else:
            try:
                value = pooled_miou(folder, self.plan.folds)
            except (MarslsError, KeyError) as error:
                self._tell(running.trial, error=f"it left no result: {error}")
            else:
                self._tell(running.trial, value=value)

    def _tell(self, trial: optuna.Trial, value: float | None = None, pruned: bool = False, error: str | None = None) -> None:
        """Record how a trial ended, and bring the files of the study up to date."""
        number = trial.number
        reported = trial.study.get_trials(deepcopy=False)[number].intermediate_values
        if error is not None:
            trial.set_user_attr(REASON, error)
            self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            logger.info(f"Trial {number} failed: {error}")
        elif pruned:
            self.study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
            logger.info(f"Trial {number} was stopped after epoch {max(reported, default=-1) + 1}: others are better.")
        else:
            self.study.tell(trial, value, skip_if_finished=True)
            best = best_trial(self.study)
            logger.info(f"Trial {number}: mIoU {value:.4f}" + (f"; best is trial {best.number} with {best.value:.4f}." if best else ""))
        self.store.end(trial)
        best = best_trial(self.study)
        if best:
            write_config(self.plan.folder / "best.yaml", best_config(self.plan.space, best))
        write_study(self.plan.folder, self.study, self.plan.space)
        tidy(self.plan.folder, self.study, best)


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """Return the finished trial with the highest mIoU, the first of equal ones; None if none was finished."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(done, key=lambda trial: (trial.value, -trial.number)) if done else None


def best_config(space: Space, trial: FrozenTrial) -> Config:
    """Return the configuration that a trial was trained with."""
    return space.configuration(space.chosen(trial.params))


def pooled_miou(folder: Path, folds: Sequence[int]) -> float:
    """Return the mIoU of a run over the pixels of all tiles that some folds hold out.

    Raises:
        InputError: If a fold is not finished.
    """
    counts = [read_record(folder / f"fold_{fold}" / "metrics.json", MetricsRecord)["counts"] for fold in folds]
    total = Counts(*(sum(part[name] for part in counts) for name in ("tp", "fp", "fn", "tn")))
    value = float(total.scores()["miou"])
    if not 0 <= value <= 1:
        raise RunError(f"its mIoU is {value}")
    return value


def _reason(code: int, log: Path) -> str:
    """Return why a trial's process failed."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return f"exit code {code}: {last_error(lines)}" if lines else f"exit code {code}, without a message"


def in_words(parameters: Mapping[str, Any]) -> str:
    """Return a trial's parameters in one line."""
    return ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in parameters.items())
