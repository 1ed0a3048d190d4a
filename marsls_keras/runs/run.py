"""The run directory: create, open and validate the files that a training writes and inference reads.

Records and weights are written atomically. The layout of the directory::

    runs/<run>/
        config.yaml  fingerprint.json  splits.json  written when the run begins
        plugins.json                                SHA-256 of its plug-ins, if there are any
        decision.json  decision_region.json         written by marsls tune, one for each purpose
        fold_<k>/
            config.yaml  environment.json           written when training begins, like normalization.json
            normalization.json
            pretrained.json                         source and SHA-256 of pretrained encoder weights, if there are any
            history.csv  log.txt  tensorboard/      written during training
            state/                                  the last two training states; of a finished fold the last one
            best-<epoch>-<hash>.weights.h5          the best weights during training
            best.weights.h5  oof.npz                written after training
            metrics.json                            written last: marks the fold as finished
            curves.png                              drawn by marsls train after that
        fold_full/                                  the refit on all tiles: like a fold, without oof.npz and scores
            full.json                               the plan of the refit: epochs, weight set, results of the folds
            pseudo_labels.npz                       pseudo-labels, 255 for none; if the refit trains on any
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marsls_keras.config import Config, changed_keys, read_config, write_config
from marsls_keras.data.fingerprint import FingerprintRecord
from marsls_keras.data.splits import FULL, Fold, Splits, SplitsRecord
from marsls_keras.datasets import RELEASES
from marsls_keras.errors import InputError, listing
from marsls_keras.files import no_folder, write_json
from marsls_keras.json_records import read_record
from marsls_keras.plugins import digests, require_unchanged
from marsls_keras.runs.fold import WEIGHTS, FoldDirectory, inspect_fold, with_epochs
from marsls_keras.runs.records import MetricsRecord, PluginsRecord
from marsls_keras.suggestions import did_you_mean


@dataclass(frozen=True)
class Run:
    """Open a run directory: configuration, splits, fingerprint and folds.

    Attributes:
        path: The run directory.
        config: Configuration of the run.
        splits: Assignment of tiles to folds.
        fingerprint: Identification of the training data (see `marsls_keras.data.fingerprint`).

    Example:
        >>> run = Run.open("runs/default")  # doctest: +SKIP
        >>> run.config.model.name, run.finished_folds()  # doctest: +SKIP
        ('segmenter', [0, 1, 2, 3, 4])
    """

    path: Path
    config: Config
    splits: Splits
    fingerprint: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the run, which is that of its directory."""
        return self.path.name

    @property
    def data_root(self) -> Path:
        """The data folder the run was trained on."""
        return Path(self.fingerprint["data_root"])

    @classmethod
    def create(
        cls, path: Path, config: Config, splits: Splits, fingerprint: dict[str, Any], resume: bool = False
    ) -> Run:
        """Create a run directory, or open an existing one with the same configuration and data.

        Several processes may train folds of one run at the same time, since all write the same content. With `resume`,
        the number of epochs of an existing run can be raised; folds that were finished with fewer stay valid.

        Raises:
            InputError: If the run exists with another configuration or other data; the differences are listed.
        """
        if (path / "splits.json").exists():
            run = cls.open(path)
            changed = changed_keys(run.config, config)
            more = changed == changed_keys(
                run.config, with_epochs(run.config, max(run.config.training.epochs, config.training.epochs))
            )
            if changed and not (resume and more):
                longer = " To train it longer, add --resume." if more else ""
                raise InputError(
                    f"Run {path} has another configuration:{listing(changed)}\nChoose another name with --run.{longer}"
                )
            if run.fingerprint["sha256"] != fingerprint["sha256"]:
                old, new = run.fingerprint, fingerprint
                parts = [
                    f"{key}: {old[key]} → {new[key]}"
                    for key in ("data_root", "release", "tiles", "size")
                    if old[key] != new[key]
                ]
                parts = parts or ["the pixels or masks of some tiles"]
                raise InputError(
                    f"Run {path} was begun on other data:{listing(parts)}\nChoose another name with --run."
                )
            if changed:
                write_config(path / "config.yaml", config)
                return cls.open(path)
            return run
        write_config(path / "config.yaml", config)
        if config.plugins:
            write_json(path / "plugins.json", {"sha256": digests(config.plugins)})
        write_json(path / "fingerprint.json", fingerprint)
        write_json(path / "splits.json", splits.to_json())
        return cls(path, config, splits, fingerprint)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open an existing run directory.

        Raises:
            InputError: If there is no such run (the other runs in the folder are listed), one of its files is damaged,
                or it was trained by a version of this package that read the tiles differently.
        """
        path = Path(path)
        if not (path / "splits.json").exists():
            beside = sorted(p.parent.name for p in path.parent.glob("*/splits.json"))
            known = f" There are: {', '.join(beside)}." if beside else " There is none yet: marsls train makes one."
            if path.parent.exists() and not path.parent.is_dir():
                raise InputError(f"{no_folder(path.parent, 'folder of runs')} Give it with --runs.")
            raise InputError(f"There is no run {path.name!r} in {path.parent}.{did_you_mean(path.name, beside)}{known}")
        splits = Splits.from_json(read_record(path / "splits.json", SplitsRecord))
        record = path / "plugins.json"
        if record.exists():  # before the configuration is read, which runs the plug-ins
            require_unchanged(read_record(record, PluginsRecord)["sha256"], record)
        config = read_config(path / "config.yaml")
        if config.plugins:
            read_record(record, PluginsRecord)  # a missing record is an error
        fingerprint = read_record(path / "fingerprint.json", FingerprintRecord)
        _require_reading(path, fingerprint)
        return cls(path, config, splits, fingerprint)

    def fold_path(self, fold: Fold) -> Path:
        """Return the directory of a fold."""
        return self.path / f"fold_{fold}"

    def metrics(self, fold: Fold) -> dict[str, Any]:
        """Return the content of metrics.json of a finished fold."""
        metrics: dict[str, Any] = read_record(self.fold_path(fold) / "metrics.json", MetricsRecord)
        return metrics

    def weights_path(self, fold: Fold) -> Path:
        """Return the path of the best weights of a finished fold."""
        return self.fold_path(fold) / WEIGHTS

    def oof_path(self, fold: Fold) -> Path:
        """Return the path of the out-of-fold predictions of a finished fold."""
        return self.fold_path(fold) / "oof.npz"

    def bound_files(self, fold: Fold) -> dict[str, Path]:
        """Return the paths of the files that the scores of a fold depend on, besides its weights, by file name."""
        own = ("normalization.json", *(("full.json",) if fold == FULL else ()))
        return {"splits.json": self.path / "splits.json", **{name: self.fold_path(fold) / name for name in own}}

    def fold(self, fold: Fold) -> FoldDirectory:
        """Inspect the directory of a fold."""
        return inspect_fold(self, fold)

    def finished_folds(self, chosen: Sequence[Fold] | None = None) -> list[Fold]:
        """Return the chosen folds, sorted, after checking that they are finished.

        Args:
            chosen: The folds; None for all, without `FULL`.

        Raises:
            InputError: If some of them are missing, unfinished, from another configuration or damaged; each is listed
                with the reason.
        """
        folds: list[Fold] = sorted(range(self.splits.folds) if chosen is None else set(chosen), key=str)
        for fold in folds:
            self.splits.require_fold(fold)
        reasons = {fold: reason for fold in folds if (reason := self.fold(fold).trouble)}
        if reasons:
            good = [str(fold) for fold in folds if fold not in reasons]
            hint = f"\nTo use only what is there, say so: --folds {','.join(good)}" if good and chosen is None else ""
            raise InputError(f"Run {self.name} is not complete:{listing(list(reasons.values()))}{hint}")
        return folds

    def digest(self, folds: Sequence[Fold]) -> dict[str, str]:
        """Return the SHA-256 of the weights of each fold, by its number as a string, as JSON keys are strings."""
        return {str(fold): self.metrics(fold)["weights_sha256"] for fold in folds}


def _require_reading(path: Path, fingerprint: dict[str, Any]) -> None:
    """Check that the run was trained on tiles read as by this version of the package.

    Otherwise its network would get other bands or values than in training. A fingerprint.json without "reading" is
    from the first version, 1.

    Raises:
        InputError: If the tiles are read differently now.
    """
    release, trained = fingerprint.get("release"), fingerprint.get("reading", 1)
    if release not in RELEASES or trained == (now := RELEASES[release].reading):
        return
    versions = f"reading {trained} of {release} (fingerprint.json), and this version of marsls-keras has reading {now}"
    what = f"Run {path} was trained with {versions}"
    if trained == 1 and release == "mmls_v1":
        what += ": it took the bands slope and thermal of these files for each other"
    package = "install marsls-keras 0.1, which reads it" if trained == 1 else "install the version that trained it"
    raise InputError(f"{what}. Train it again under another name with --run, or {package}.")


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the rows of history.csv, one per epoch; return an empty list if there is no such file.

    Raises:
        InputError: If the file is damaged.

    Example:
        >>> _ = Path("history.csv").write_text(history_text([{"epoch": 0, "loss": 0.5}, {"epoch": 1, "loss": 0.4}]))
        >>> [row["loss"] for row in read_history(Path("history.csv"))]
        [0.5, 0.4]
    """
    if not path.exists():
        return []
    try:
        header, *rows = path.read_text(encoding="utf-8").splitlines()
        return [dict(zip(header.split(","), map(float, row.split(",")), strict=True)) for row in rows]
    except ValueError as error:  # of the encoding, a number, or the number of columns
        raise InputError(f"{path} is damaged: {error}. Restore it from a copy, or move it away.") from None


def history_text(rows: list[dict[str, float]]) -> str:
    """Format rows as the text of history.csv; numbers keep all their digits.

    Example:
        >>> history_text([{"epoch": 0, "loss": 0.5}]).splitlines()
        ['epoch,loss', '0,0.5']
    """
    lines = [",".join(rows[0]), *(",".join(json.dumps(value) for value in row.values()) for row in rows)]
    return "\n".join(lines) + "\n"
