"""The run directory: all that inference needs, written piece by piece and never half.

runs/<run>/
    config.yaml  fingerprint.json  splits.json      written when the run begins
    decision.json                                   written by tune
    fold_<k>/
        config.yaml  environment.json  normalization.json
        pretrained.json                             where the encoders' first weights came from, and the file's SHA-256; if from anywhere
        history.csv  log.txt  tensorboard/          while training
        state/                                      while training; of a finished fold the last one, to go on with more epochs
        best-<epoch>.weights.h5                     while training
        best.weights.h5  oof.npz  curves.png        when it is done
        best.<set>.weights.h5  oof.<set>.npz        with keep_each: the same of the sets of weights that were not the best of all
        metrics.json                                last: a fold that has it is finished
    fold_full/                                      the refit on all tiles: as a fold, without oof.npz and scores
        full.json                                   how many epochs, which weights, and what the folds had to say
        pseudo_labels.npz                           labels of images that had none, 255 for none still; if it trains on any
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marsls_keras.config import Config, differences, read_config, write_config
from marsls_keras.data.fingerprint import FingerprintRecord
from marsls_keras.data.splits import FULL, Fold, Splits, SplitsRecord
from marsls_keras.datasets import RELEASES
from marsls_keras.errors import InputError, listing
from marsls_keras.files import no_folder, sha256, write_json
from marsls_keras.names import meant
from marsls_keras.records import read_record
from marsls_keras.runs.records import MetricsRecord


@dataclass(frozen=True)
class Run:
    """A run on disk, whose folds predict with the best of all their weights, or with the best of one set of them.

    Attributes:
        path: Its folder.
        config: Its configuration.
        splits: Its folds.
        fingerprint: What it is trained on (see marsls_keras.data.fingerprint).
        weights: The set of weights, "last", "ema" or "swa"; None for the best of all.
    """

    path: Path
    config: Config
    splits: Splits
    fingerprint: dict[str, Any]
    weights: str | None = None

    @property
    def name(self) -> str:
        """The run's name, with @ and the set of weights if it stands for one."""
        return self.path.name if self.weights is None else f"{self.path.name}@{self.weights}"

    @property
    def data_root(self) -> Path:
        """The data folder the run was trained on."""
        return Path(self.fingerprint["data_root"])

    @classmethod
    def create(cls, path: Path, config: Config, splits: Splits, fingerprint: dict[str, Any], resume: bool = False) -> Run:
        """Begin a run, or go on with one of the same configuration and data.

        Safe for several processes that train folds of one run: all write the same content. With `resume` the run may get more epochs than
        it was begun with; folds that were finished with fewer stay valid.

        Raises:
            InputError: If there is a run of this name with another configuration or other data; what differs is named.
        """
        if (path / "splits.json").exists():
            run = cls.open(path)
            changed = differences(run.config, config)
            more = changed == differences(run.config, with_epochs(run.config, max(run.config.training.epochs, config.training.epochs)))
            if changed and not (resume and more):
                longer = " To train it longer, add --resume." if more else ""
                raise InputError(f"Run {path} has another configuration:{listing(changed)}\nChoose another name with --run.{longer}")
            if run.fingerprint["sha256"] != fingerprint["sha256"]:
                old, new = run.fingerprint, fingerprint
                parts = [f"{key}: {old[key]} → {new[key]}" for key in ("data_root", "release", "tiles", "size") if old[key] != new[key]]
                parts = parts or ["the pixels or masks of some tiles"]
                raise InputError(f"Run {path} was begun on other data:{listing(parts)}\nChoose another name with --run.")
            if changed:
                write_config(path / "config.yaml", config)
                return cls.open(path)
            return run
        write_config(path / "config.yaml", config)
        write_json(path / "fingerprint.json", fingerprint)
        write_json(path / "splits.json", splits.to_json())
        return cls(path, config, splits, fingerprint)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open a run.

        Args:
            path: Its folder; with @ and a set of weights behind it, such as runs/default@ema, the run as these weights have it.

        Raises:
            InputError: If there is no such run, or one of its files is damaged; the runs beside it are named. Or if it was not trained with
                such weights, or on tiles as another version of this package reads them.
        """
        path = Path(path)
        name, at, weights = path.name.partition("@")
        path = path.parent / name if at else path
        if not (path / "splits.json").exists():
            beside = sorted(p.parent.name for p in path.parent.glob("*/splits.json"))
            known = f" There are: {', '.join(beside)}." if beside else " There is none yet: marsls train makes one."
            if path.parent.exists() and not path.parent.is_dir():
                raise InputError(f"{no_folder(path.parent, 'folder of runs')} Give it with --runs.")
            raise InputError(f"There is no run {path.name!r} in {path.parent}.{meant(path.name, beside)}{known}")
        splits = Splits.from_json(read_record(path / "splits.json", SplitsRecord))
        config = read_config(path / "config.yaml")
        if at and weights not in config.training.weight_sets:
            there = ", ".join(f"{name}@{known}" for known in config.training.weight_sets)
            hint = meant(weights, config.training.weight_sets)
            raise InputError(f"Run {name} was not trained with weights {weights!r}.{hint} There are: {there}.")
        fingerprint = read_record(path / "fingerprint.json", FingerprintRecord)
        _require_reading(path, fingerprint)
        return cls(path, config, splits, fingerprint, weights if at else None)

    def fold_path(self, fold: Fold) -> Path:
        """Return the folder of a fold."""
        return self.path / f"fold_{fold}"

    def metrics(self, fold: Fold) -> dict[str, Any]:
        """Return the content of a finished fold's metrics.json, where the figures are those of the run's weights."""
        metrics = self._metrics(fold)
        other = self._other(metrics)
        return metrics | metrics["each"][other] if other else metrics

    def weights_path(self, fold: Fold) -> Path:
        """Return the file of a finished fold's weights."""
        return self.fold_path(fold) / weights_name(self._other(self._metrics(fold)))

    def oof_path(self, fold: Fold) -> Path:
        """Return the file of what a finished fold predicts with them for the tiles it holds out."""
        return self.fold_path(fold) / oof_name(self._other(self._metrics(fold)))

    def _metrics(self, fold: Fold) -> Any:
        return read_record(self.fold_path(fold) / "metrics.json", MetricsRecord)

    def bound_files(self, fold: Fold) -> dict[str, Path]:
        """Return the files that the scores of a fold hang on besides its weights, by the names that metrics.json has for them."""
        own = ("normalization.json", *(("full.json",) if fold == FULL else ()))
        return {"splits.json": self.path / "splits.json", **{name: self.fold_path(fold) / name for name in own}}

    def _other(self, metrics: dict[str, Any]) -> str | None:
        """Return the set of weights that the run stands for, None if it was the best of all in the fold of these metrics."""
        return None if self.weights in (None, metrics.get("best_weights")) else self.weights

    def trouble(self, fold: Fold) -> str | None:
        """Return why a fold cannot be used, or None if it can: it is finished, of the run's configuration, and its weights are intact."""
        folder = self.fold_path(fold)
        if not (folder / "config.yaml").exists():
            return f"fold {fold} is missing: {self._command(fold)}"
        try:
            trained = read_config(folder / "config.yaml")
            # Of folds that had different numbers of epochs each is as good a member as the others.
            expected = with_epochs(self.config, trained.training.epochs)
            changed = differences(without_patience(expected) if fold == FULL else expected, trained)
            metrics = self._metrics(fold) if (folder / "metrics.json").exists() else None
        except InputError as error:
            return f"fold {fold} is damaged: {error}"
        if changed:
            return f"fold {fold} is from another configuration ({'; '.join(changed)})"
        if metrics is None:
            return f"fold {fold} is unfinished: {self._command(fold)} --resume"
        if (other := self._other(metrics)) and other not in (metrics.get("each") or {}):
            return f"fold {fold} kept no weights {other}, only {', '.join(metrics.get('each') or [metrics['best_weights']])}"
        if metrics["fold"] != fold:
            return f"fold {fold} is damaged: {folder / 'metrics.json'} is that of fold {metrics['fold']}"
        weights = self.weights_path(fold)
        if not weights.exists() or sha256(weights) != self.metrics(fold).get("weights_sha256"):
            return f"fold {fold} has other weights than it was finished with ({weights} is missing or changed)"
        for name, digest in metrics.get("files_sha256", {}).items():
            path = self.bound_files(fold).get(name, folder / name)
            if not path.exists() or sha256(path) != digest:
                return f"fold {fold} was trained with another {name} ({path} is missing or changed)"
        return None

    def _command(self, fold: Fold) -> str:
        """Return what to type to train a fold of this run."""
        elsewhere = [] if self.path.parent == Path("runs") else ["--runs", str(self.path.parent)]
        # A run that was begun with other epochs than its recipe's is not gone on with unless they are given again.
        epochs = ["--epochs", str(self.config.training.epochs)] if (self.path / "recipe.json").exists() and fold != FULL else []
        return shlex.join(["marsls", "train", "--run", self.path.name, *elsewhere, "--fold", str(fold), *epochs])

    def finished_folds(self, chosen: Sequence[Fold] | None = None) -> list[Fold]:
        """Return the folds to use: the chosen ones, or all; `FULL` only if it is chosen.

        Raises:
            InputError: If one of them is missing, unfinished, from another configuration or damaged, or did not keep the set of
                weights that the run stands for; each is named with the reason.
        """
        folds: list[Fold] = sorted(range(self.splits.folds) if chosen is None else set(chosen), key=str)
        for fold in folds:
            self.splits.require_fold(fold)
        reasons = {fold: reason for fold in folds if (reason := self.trouble(fold))}
        if reasons:
            good = [str(fold) for fold in folds if fold not in reasons]
            hint = f"\nTo use only what is there, say so: --folds {','.join(good)}" if good and chosen is None else ""
            if self.weights and FULL in folds:
                hint = f"\nA refit keeps one set of weights, whatever it is: name it {self.path.name}, without @."
            elif self.weights and not self.config.training.keep_each:
                hint += "\nA run that is trained with --set training.keep_each=true keeps the best weights of each set."
            raise InputError(f"Run {self.name} is not complete:{listing(list(reasons.values()))}{hint}")
        return folds

    def digest(self, folds: Sequence[Fold]) -> dict[str, str]:
        """Return the SHA-256 of the weights of each fold, by its number as a string (for JSON)."""
        return {str(fold): self.metrics(fold)["weights_sha256"] for fold in folds}


def _require_reading(path: Path, fingerprint: dict[str, Any]) -> None:
    """Refuse a run whose network would be shown other bands, or other values, than those it has learned.

    Runs from before there was such a version in fingerprint.json have 1.
    """
    release, trained = fingerprint.get("release"), fingerprint.get("reading", 1)
    if release not in RELEASES or trained == (now := RELEASES[release].reading):
        return
    what = (
        f"Run {path} was trained with reading {trained} of {release} (fingerprint.json), and this version of marsls-keras has reading {now}"
    )
    if trained == 1 and release == "mmls_v1":
        what += ": it took the bands slope and thermal of these files for each other"
    package = "install marsls-keras 0.1, which reads it" if trained == 1 else "install the version that trained it"
    raise InputError(f"{what}. Train it again under another name with --run, or {package}.")


def weights_name(of: str | None = None) -> str:
    """Return the name of a finished fold's file of weights: the best of all, or of a set."""
    return "best.weights.h5" if of is None else f"best.{of}.weights.h5"


def oof_name(of: str | None = None) -> str:
    """Return the name of the file of predictions with them."""
    return "oof.npz" if of is None else f"oof.{of}.npz"


def with_epochs(config: Config, epochs: int) -> Config:
    """Return a configuration with another number of epochs."""
    return config.model_copy(update={"training": config.training.model_copy(update={"epochs": epochs})})


def without_patience(config: Config) -> Config:
    """Return a configuration as the refit on all tiles has it, where nothing is evaluated and so nothing can stop getting better."""
    return config.model_copy(update={"training": config.training.model_copy(update={"patience": None})})


def read_history(path: Path) -> list[dict[str, float]]:
    """Return the rows of a fold's history.csv, one an epoch; empty if there is none.

    Raises:
        InputError: If it is damaged.
    """
    if not path.exists():
        return []
    try:
        header, *rows = path.read_text(encoding="utf-8").splitlines()
        return [dict(zip(header.split(","), map(float, row.split(",")), strict=True)) for row in rows]
    except ValueError as error:  # of UTF-8, of a number, of their count
        raise InputError(f"{path} is damaged: {error}. Restore it from a copy, or move it away.") from None


def history_text(rows: list[dict[str, float]]) -> str:
    """Return rows as the text of history.csv; numbers keep all their digits."""
    lines = [",".join(rows[0]), *(",".join(json.dumps(value) for value in row.values()) for row in rows)]
    return "\n".join(lines) + "\n"
