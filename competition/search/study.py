"""Run an Optuna study over training: draw the configuration of each trial, and keep the best."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from competition.processes import PROGRAM
from competition.search.space import Space
from competition.search.storage import Storage
from competition.search.study_files import tidy, write_study
from competition.search.trial import PRUNED, TrialRequest, build_pruner
from competition.search.worker import TrialWorker
from marsls_keras.config import Config, Range, changed_keys, parse_config, write_config
from marsls_keras.config.validate import drop_removed_keys
from marsls_keras.counts import Counts
from marsls_keras.errors import InputError, MarslsError, RunError, listing
from marsls_keras.json_records import read_record
from marsls_keras.runs.records import MetricsRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyPlan:
    """Settings of a study.

    Attributes:
        folder: Folder of trials and results: `search` in the folder of a run.
        name: Name of the study; that of the run.
        space: The configuration and its search space.
        data: Data folder.
        data_sha256: Fingerprint of its tiles.
        folds: The folds that a trial trains; it is judged by the mIoU over the pixels of all tiles that they hold out.
        trials: Total number of trials, with those that the study already has.
        pruner: Name of the pruner.
        storage: Path or URL of the storage, see `open_storage`.

    Example:
        >>> from marsls_keras.config import load_recipe
        >>> space = Space.of(load_recipe("unet")[1])
        >>> StudyPlan(Path("search"), "unet", space, Path("data"), "", [0], 40, "median", "journal.log").trials
        40
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


class StudyWorker(TrialWorker):
    """Run the trials of a search, each in its own process.

    Any number of workers may share a study. A worker ends when the study has all trials, or at a signal.

    Args:
        plan: What is searched.
        storage: The opened storage.
        environments: The environment variables of each process that may run at once.

    Attributes:
        command: Program and arguments that train a trial: they read a `TrialRequest` and leave a run with finished
            folds.
        study: Optuna's study, created if the storage does not have it.
        stopped: The signal that ended the work early, or None.

    Raises:
        InputError: If the study of this name searches something else, or trials of another study are in the folder.

    Example:
        >>> worker = StudyWorker(plan, open_storage(plan.storage), [os.environ])  # doctest: +SKIP
        >>> best_trial(worker.run()).value  # doctest: +SKIP
        0.87
    """

    command: Sequence[str] = (*PROGRAM, "trial")

    def __init__(self, plan: StudyPlan, storage: Storage, environments: Sequence[Mapping[str, str]]) -> None:
        self.plan = plan
        pruner = build_pruner(plan.pruner, plan.space.base.training.epochs * len(plan.folds))
        study = optuna.create_study(
            storage=storage, study_name=plan.name, direction="maximize", load_if_exists=True, pruner=pruner
        )
        super().__init__(study, storage, environments)
        self._agree()

    def run(self) -> optuna.Study:
        """Train trials until the study has all of them, and return the study.

        Raises:
            RunError: If a file cannot be written.
        """
        super().run()
        write_study(self.plan.folder, self.study, self.plan.space)
        return self.study

    def _agree(self) -> None:
        """Store configuration, search space, folds and data in a new study, or compare them with those stored.

        Raises:
            InputError: If they differ, or the folder holds trials of another study.
        """
        plan = self.plan
        keys = {
            key: values.model_dump() if isinstance(values, Range) else list(values)
            for key, values in plan.space.keys.items()
        }
        facts = {
            "config": plan.space.base.model_dump(mode="json"),
            "search": keys,
            "folds": plan.folds,
            "data": plan.data_sha256,
        }
        facts = json.loads(json.dumps(facts))
        known = self.study.user_attrs
        if "config" in known:  # a study of an earlier version
            drop_removed_keys(known["config"])
        for name, value in facts.items():
            if name not in known:
                self.study.set_user_attr(name, value)
        changed = [name for name, value in facts.items() if known.get(name, value) != value]
        if changed:
            found = [f"{name}: {known[name]} → {facts[name]}" for name in changed if name not in ("config", "data")]
            found += (
                changed_keys(parse_config(known["config"], "of the study"), plan.space.base)
                if "config" in changed
                else []
            )
            found += ["the tiles in the data folder"] if "data" in changed else []
            raise InputError(f"Study {plan.name} was begun otherwise:{listing(found)}\nChoose another name with --run.")
        numbers = {trial.number for trial in self.study.get_trials(deepcopy=False)}
        foreign = [
            path.name
            for path in plan.folder.glob("trial_*")
            if path.name.removeprefix("trial_") not in map(str, numbers)
        ]
        if foreign:
            raise InputError(
                f"{plan.folder} holds trials of another study, such as {sorted(foreign)[0]}. "
                "Choose another name with --run."
            )

    def _claim(self) -> optuna.Trial | None:
        """Return a new trial for this worker, or None if the study has all its trials."""
        if self._begun() >= self.plan.trials:
            return None
        trial = self.study.ask()
        # Another worker may have begun the last trial in the meantime; then this one waits for a longer study.
        if self._begun(before=trial.number) >= self.plan.trials:
            self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
            return None
        self.storage.record_heartbeat(trial._trial_id)
        # A seed for each trial: workers draw different values, and a resumed study does not repeat its draws.
        seed = self.plan.space.base.training.seed + trial.number
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        return trial

    def _begun(self, before: float = math.inf) -> int:
        """Return how many trials with lower numbers were begun, in any state."""
        return sum(
            trial.state != TrialState.WAITING and trial.number < before
            for trial in self.study.get_trials(deepcopy=False)
        )

    def _start(self, trial: optuna.Trial) -> None:
        plan, folder = self.plan, self.plan.folder / f"trial_{trial.number}"
        try:
            config = plan.space.configuration(plan.space.draw(trial))
        except InputError as error:
            self._tell(trial, TrialState.FAIL, reason=str(error))
            return
        write_config(folder / "recipe.yaml", config)
        request = TrialRequest(
            plan.storage, plan.name, trial._trial_id, plan.pruner, str(folder), str(plan.data), plan.folds
        )
        self._launch(trial, request.line(), folder / "trial.log")
        logger.info(f"Trial {trial.number}: {in_words(trial.params)}")

    _good = (PRUNED,)

    def _ended(self, trial: optuna.Trial, code: int) -> None:
        if code == PRUNED:
            self._tell(trial, TrialState.PRUNED)
            return
        try:
            value = pooled_miou(self.plan.folder / f"trial_{trial.number}", self.plan.folds)
        except (MarslsError, KeyError) as error:
            self._tell(trial, TrialState.FAIL, reason=f"it left no result: {error}")
        else:
            self._tell(trial, TrialState.COMPLETE, value)

    def _tell(
        self, trial: optuna.Trial, state: TrialState, value: float | None = None, reason: str | None = None
    ) -> None:
        """Record how a trial ended, and update the files of the study."""
        super()._tell(trial, state, value, reason)
        best = best_trial(self.study)
        if state == TrialState.FAIL:
            logger.info(f"Trial {trial.number} failed: {reason}")
        elif state == TrialState.PRUNED:
            ended = next(t for t in self.study.get_trials(deepcopy=False) if t.number == trial.number)
            epochs = max(ended.intermediate_values, default=-1) + 1
            logger.info(f"Trial {trial.number} was stopped after epoch {epochs}: others are better.")
        else:
            logger.info(
                f"Trial {trial.number}: mIoU {value:.4f}"
                + (f"; best is trial {best.number} with {best.value:.4f}." if best else "")
            )
        if best:
            write_config(self.plan.folder / "best.yaml", best_config(self.plan.space, best))
        write_study(self.plan.folder, self.study, self.plan.space)
        tidy(self.plan.folder, self.study, best)


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """Return the finished trial with the highest mIoU, the first among equals; None if none is finished.

    Example:
        >>> best_trial(optuna.create_study(direction="maximize")) is None
        True
    """
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(done, key=lambda trial: (trial.value, -trial.number)) if done else None


def best_config(space: Space, trial: FrozenTrial) -> Config:
    """Return the configuration that a trial was trained with.

    Example:
        >>> from marsls_keras.config import load_recipe
        >>> space = Space.of(load_recipe("unet", ["search={training.learning_rate: [0.001, 0.002]}"])[1])
        >>> values = optuna.distributions.CategoricalDistribution([0.001, 0.002])
        >>> trial = optuna.trial.create_trial(
        ...     value=0.8, params={"training.learning_rate": 0.002}, distributions={"training.learning_rate": values}
        ... )
        >>> best_config(space, trial).training.learning_rate
        0.002
    """
    return space.configuration(space.chosen(trial.params))


def pooled_miou(folder: Path, folds: Sequence[int]) -> float:
    """Return the mIoU of a run, pooled over the pixels of all tiles that the given folds hold out.

    Raises:
        InputError: If a fold is not finished.
        RunError: If the mIoU is not a number from 0 to 1.

    Example:
        >>> pooled_miou(Path("runs/unet"), [0, 1])  # doctest: +SKIP
        0.7431
    """
    counts = [read_record(folder / f"fold_{fold}" / "metrics.json", MetricsRecord)["counts"] for fold in folds]
    total = Counts(*(sum(part[name] for part in counts) for name in ("tp", "fp", "fn", "tn")))
    value = float(total.scores()["miou"])
    if not 0 <= value <= 1:
        raise RunError(f"its mIoU is {value}")
    return value


def in_words(parameters: Mapping[str, Any]) -> str:
    """Format the parameters of a trial as one line of text.

    Example:
        >>> in_words({"training.learning_rate": 0.00123456, "loss": "{bce: 1}"})
        'training.learning_rate 0.001235, loss {bce: 1}'
    """
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in parameters.items()
    )
